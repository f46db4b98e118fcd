"""Two processes train a detector together, and measure it over all images."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from runs.training_process import finish, kill, start_training, wait_for

from dropkey.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]

COUNTS = {"train": 24, "val": 7}  # an odd number: the processes see different numbers of images


@pytest.fixture(scope="module")
def boxed(tmp_path_factory):
    """Bright squares on noise; a third of the training images have none, so that a process may have a batch without."""
    root, rng = tmp_path_factory.mktemp("boxed"), np.random.default_rng(0)
    (root / "annotations").mkdir()
    for split, count in COUNTS.items():
        (root / split).mkdir()
        images, rows = [], []
        for number in range(1, count + 1):
            pixels = rng.integers(0, 60, (64, 64, 3), dtype=np.uint8)
            images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 64})
            if split == "val" or number % 3:
                left, top = (int(value) for value in rng.integers(2, 20, 2))
                pixels[top : top + 40, left : left + 40] = 230
                rows.append({"id": len(rows) + 1, "image_id": number, "category_id": 1, "bbox": [left, top, 40, 40]})
            Image.fromarray(pixels).save(root / split / f"{number}.png")
        content = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "square"}]}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def options(boxed, tiny):
    words = ["--task", "detection", "--data", "coco", "--data-dir", str(boxed), "--model", str(tiny)]
    words += ["--img-size", "64", "--batch-size", "2", "--epochs", "12", "--lr", "2e-3", "--workers", "0"]
    return [*words, "--flip", "0.5", "--threads", "1", "--save-seconds", "0.2"]


@pytest.fixture(scope="module")
def together(options, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs") / "together"
    out = finish(start_training(root, *options, processes=2))
    assert out.count("24 for training, 7 for validation") == 1  # one process speaks
    return root


def measured(root):
    rows = list(csv.DictReader((root / "metrics.csv").read_text().splitlines()))
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_one_process_measures_what_two_have(together):
    assert main(["evaluate", str(together)]) == 0
    result = json.loads((together / "evaluation.json").read_text())
    assert result["images"] == COUNTS["val"]
    last = measured(together)[-1]
    assert result["AP50"] == pytest.approx(float(last["val_AP50"]), abs=1e-6)
    assert result["mAP"] == pytest.approx(float(last["val_mAP"]), abs=1e-6)
    assert result["mAP"] > 0, "then equal numbers would say nothing"


def test_two_processes_killed_and_resumed(together, options, tmp_path):
    root = tmp_path / "run"
    process = start_training(root, *options, processes=2)
    wait_for(root / "checkpoints" / "last.ckpt", process)
    kill(process)
    assert not (root / "summary.json").exists()
    finish(start_training(root, "--resume", processes=2))
    assert measured(root) == measured(together)
