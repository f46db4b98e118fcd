"""``dropkey diagnose`` from the outside."""

import json
import re

import pytest
from PIL import Image

from dropkey.cli import main


@pytest.fixture
def photographs(tmp_path):
    paths = [tmp_path / "one.png", tmp_path / "two <b>.jpg"]
    for number, path in enumerate(paths):
        Image.new("RGB", (40, 30), (200 * number, 90, 30)).save(path)
    return [str(path) for path in paths]


def data_of(path):
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)[1])


def test_models_on_image_files(photographs, tmp_path, capsys):
    page = tmp_path / "page.html"
    command = ["diagnose", "vit_mini_patch2_8", *photographs, "--beside", "vit_mini_patch2_8", "--output", str(page)]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert out.count("blocks.3.attn") == 2
    assert f"open {page} in a browser" in out
    data = data_of(page)
    assert [image["name"] for image in data["images"]] == ["one.png", "two <b>.jpg"]
    assert [model["label"] for model in data["models"]] == [
        "vit_mini_patch2_8, untrained (1)",
        "vit_mini_patch2_8, untrained (2)",
    ]


def test_a_run_has_its_own_images(few_digits, tmp_path, capsys):
    run, page = str(tmp_path / "run"), tmp_path / "page.html"
    assert main(["train", "--output", run, "--epochs", "1", "--workers", "0", "--drop-ratio", "0.3"]) == 0
    assert main(["diagnose", run, "--output", str(page)]) == 0
    assert len(data_of(page)["images"]) == 4
    assert [model["label"] for model in data_of(page)["models"]] == [run]
    capsys.readouterr()
    assert main(["diagnose", run, "--img-size", "16"]) == 2
    assert "a run has its own" in capsys.readouterr().err


def test_a_run_over_its_training(few_digits, tmp_path, capsys):
    run, page = tmp_path / "run", tmp_path / "page.html"
    words = ["--epochs", "4", "--workers", "0", "--attention-every", "2"]
    assert main(["train", "--output", str(run), *words]) == 0
    assert main(["diagnose", str(run), "--over-training", "--output", str(page)]) == 0
    assert "looks after epoch 2, epoch 4" in capsys.readouterr().out
    data = data_of(page)
    assert data["areEpochs"] is True
    assert [model["label"] for model in data["models"]] == ["epoch 2", "epoch 4"]
    first, last = (model["sites"][0]["measures"]["entropy"] for model in data["models"])
    assert first != last

    assert main(["diagnose", str(run), "--over-training", "--beside", "x", "--seed", "3"]) == 2
    assert "leave out --beside, --seed" in capsys.readouterr().err
    assert main(["diagnose", "vit_mini_patch2_8", "--over-training"]) == 2
    assert "name a run folder, and no images" in capsys.readouterr().err
    (run / "attention" / "epoch-0001.report").write_bytes(b"no")
    assert main(["diagnose", str(run), "--over-training", "--output", str(page)]) == 2
    assert "epoch-0001.report is not a look at attention" in capsys.readouterr().err
    for path in (run / "attention").glob("*.report"):
        path.unlink()
    assert main(["diagnose", str(run), "--over-training", "--output", str(page)]) == 2
    assert "has kept no looks at attention: train it with --attention-every N" in capsys.readouterr().err


def test_a_model_of_torchvision(photographs, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["diagnose", "swin_t", photographs[0], "--img-size", "32", "--output", str(page)]) == 0
    assert data_of(page)["images"][0]["width"] == 32


BAD = {
    "vit_mini_patch2_8": "has no images of its own: name some image files",
    "vit_mini_patch2_8 nowhere.png": "no image nowhere.png",
    "vit_mini_patch2_8 IMAGE --output /nowhere/page.html": "there is no folder /nowhere",
    "vit_mini_patch2_8 IMAGE --weights a --pretrained": "two sources of weights",
    "vit_mini_patch2_9 IMAGE": "no model 'vit_mini_patch2_9'",
    "resnet18 IMAGE": "found no supported attention module",
    "nn.Transformer IMAGE": "nn.Transformer takes no images",
    "swin_t IMAGE --weights a": "are for timm models, which swin_t is not",
    "vit_mini_patch2_8 IMAGE --weights nowhere.pt": "nowhere.pt",
}


@pytest.mark.parametrize(("command", "named"), BAD.items())
def test_what_the_user_can_mend_is_one_line(command, named, photographs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["diagnose", *command.replace("IMAGE", photographs[0]).split()]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert named in err
    assert not (tmp_path / "attention.html").exists()
