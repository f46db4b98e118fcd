"""The recipe of the paper, run dry: on two images, for an epoch."""

import json
from pathlib import Path

import pytest
from PIL import Image

from dropkey.cli import main

RECIPE = Path(__file__).parents[3] / "examples" / "detr_r50_coco_dropkey.yaml"

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def two_images(tmp_path):
    (tmp_path / "annotations").mkdir()
    for split in ("train", "val"):
        (tmp_path / f"{split}2017").mkdir()
        images = []
        for number, size in enumerate([(120, 80), (70, 100)]):
            Image.new("RGB", size, "gray").save(tmp_path / f"{split}2017" / f"{number}.jpg")
            images.append({"id": number, "file_name": f"{number}.jpg", "width": size[0], "height": size[1]})
        rows = [{"id": i + 1, "image_id": i, "category_id": 18, "bbox": [5, 6, 30, 40]} for i in range(2)]
        content = {"images": images, "annotations": rows, "categories": [{"id": 18, "name": "dog"}]}
        (tmp_path / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
    return tmp_path


DRY = ["--epochs", "1", "--lr-drop-epoch", "0", "--img-size", "64x96", "--workers", "0", "--pretrained", "false"]


@pytest.mark.parametrize("model", ["detr_mini", pytest.param("detr_r50", marks=pytest.mark.slow)])
def test_the_recipe_runs(model, two_images, tmp_path, capsys):
    command = ["train", "--config", str(RECIPE), *DRY, "--model", model, "--data-dir", str(two_images)]
    assert main([*command, "--output", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert {site["name"].split(".")[1] for site in summary["sites"]} == {"encoder"}
    assert summary["drop_ratios"][0] == pytest.approx(0.1)
    assert "boxes" not in capsys.readouterr().out.split("\n")[0]  # nothing was mended
