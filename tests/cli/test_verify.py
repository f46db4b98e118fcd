"""``dropkey verify`` from the outside, by every kind of name."""

import importlib.util
import re
import sys
from pathlib import Path

import huggingface_hub
import pytest

from dropkey.adapters.discover import attention_modules
from dropkey.catalogue.configured import knows
from dropkey.catalogue.timm import TIMM_FAMILIES
from dropkey.catalogue.torch import TORCH_FAMILIES
from dropkey.catalogue.transformers import TRANSFORMERS_FAMILIES
from dropkey.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "models.md"
TRANSFORMERS = {family.name: family for family in TRANSFORMERS_FAMILIES}


def shares(capsys, *command):
    """The dropped share of every site, as the command prints it."""
    code = main(["verify", "--batch-size", "2", *command])
    out, err = capsys.readouterr()
    assert code == 0, err
    assert "untouched, bit for bit" in out
    return [float(share) for share in re.findall(r" 0\.3 +(\d\.\d{4}) .*drops as it should$", out, flags=re.MULTILINE)]


def assert_about_a_third(dropped, num_sites):
    assert len(dropped) == num_sites > 0
    assert min(dropped) > 0.1
    assert sum(dropped) / num_sites == pytest.approx(0.3, abs=0.06)


def test_every_site_is_proved(capsys):
    assert main(["verify", "vit_mini_patch2_8", "--drop-ratio", "0.5", "--pattern", "block"]) == 0
    out = capsys.readouterr().out
    assert out.count("drops as it should") == 4
    assert "untouched, bit for bit" in out


def test_image_size_reaches_the_model(capsys):
    assert main(["verify", "vit_mini_patch2_8", "--img-size", "12", "--pattern", "token"]) == 0
    assert "of 36 keys" in capsys.readouterr().out


NAMES = {
    "timm:vit_mini_patch2_8": 4,
    "swin_t --img-size 32": 12,
    "mobilevit --img-size 64": 9,  # transformers' types and classes
    "transformers:PvtV2ForImageClassification --img-size 64": 8,
    "nn.TransformerDecoder": 4,
    "torch.nn.Transformer": 6,
    "torch.nn:MultiheadAttention": 1,
}


@pytest.mark.parametrize(("command", "num_sites"), NAMES.items())
def test_names_of_each_library(command, num_sites, capsys):
    assert_about_a_third(shares(capsys, *command.split()), num_sites)


FOLDERS = ["ViT", "SigLIP 2, vision", "VideoMAE", "YOLOS", "DETR"]


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(family, id=family.name, marks=[] if family.name in FOLDERS else pytest.mark.slow)
        for family in TRANSFORMERS_FAMILIES
    ],
)
def test_a_folder_with_a_configuration(family, tmp_path, capsys):
    model = family.small()
    model.config.architectures = [family.public]
    model.config.save_pretrained(tmp_path)
    assert knows(family.public)
    dropped = shares(capsys, str(tmp_path), "--img-size", "64", "--batch-size", "16")
    assert_about_a_third(dropped, len(attention_modules(model)))


def test_of_a_model_with_text_the_vision_model(tmp_path, capsys):
    (tmp_path / "config.json").write_text(
        '{"model_type": "clip", "architectures": ["CLIPModel"], "vision_config": {"hidden_size": 32, "image_size": 32, '
        '"num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 8}}'
    )
    assert main(["verify", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("CLIPVisionModel, untrained, on pixel_values (4, 3, 32, 32)\n")
    assert out.count("drops as it should") == 3


BAD_NAMES = {
    "timm:vit_b_16": "no model 'vit_b_16' in timm; did you mean",
    "vit_b_17": "did you mean 'vit_b_16'",
    "ViTModle": "did you mean 'ViTModel'",
    "nn.Transformers": "did you mean 'nn.Transformer'",
    "ViTConfig": "no model 'ViTConfig' in timm, torchvision, transformers, torch.nn",
    "torchvison:swin_t": "did you mean 'torchvision'",
    "torchvision:swin3d_t --img-size 32": "found no supported attention module in this SwinTransformer3d",
    "transformers:mobilenet_v1 --img-size 32": "found no supported attention module in this MobileNetV1Model",
    "MobileViTV2Model --img-size 64": "linear attention: no softmax over keys",
    "torchvision:vit_b_16 --img-size 33": "cannot build 'vit_b_16' for images of 33 pixels",
    "transformers:levit --img-size 8": "does not run; try another --img-size or --batch-size",
    "mobilevit --img-size 32 --batch-size 1": "does not run; try another --img-size or --batch-size",
    "roc_bert": "takes input_ids, and dropkey verify makes images alone",
    "VideoMAEForPreTraining": "takes bool_masked_pos, and dropkey verify makes images alone",
    "nn.Transformer --img-size 8": "takes sequences: leave out --img-size",
    "./nowhere": "no folder './nowhere'",
}


@pytest.mark.parametrize(("command", "named"), BAD_NAMES.items())
def test_a_bad_name_is_one_line(command, named, capsys):
    assert main(["verify", "--batch-size", "2", *command.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("dropkey: ")
    assert named in err


def test_a_model_on_the_hub_without_a_network(monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert main(["verify", "someone/some-vit"]) == 2
    assert "the model of that name on the hub cannot be had" in capsys.readouterr().err


def test_a_configuration_that_is_cached_needs_no_network(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    root = tmp_path / "models--someone--some-vit"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("abc")
    TRANSFORMERS["ViT"].small().config.save_pretrained(root / "snapshots" / "abc")
    assert_about_a_third(shares(capsys, "someone/some-vit"), 2)


def test_a_configuration_without_a_type(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    assert main(["verify", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_without_transformers_the_other_libraries_are_known(monkeypatch, capsys):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "transformers" else real(name))
    assert main(["verify", "detr"]) == 2
    assert capsys.readouterr().err.endswith("; transformers is not installed\n")


def test_transformers_is_named_where_it_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "dropkey.catalogue.configured", raising=False)
    monkeypatch.delattr("dropkey.catalogue.configured", raising=False)
    assert main(["verify", "transformers:detr"]) == 2
    assert "pip install 'dropkey[transformers]'" in capsys.readouterr().err


# Their own images make a thousand tokens and more.
SMALLER_IMAGES = {"samvit_base_patch16": "256", "sam2_hiera_tiny": "256", "gemma4_vit_167m": "192"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "family",
    TIMM_FAMILIES + TORCH_FAMILIES,
    ids=lambda family: f"{family.library}:{family.public}",
)
def test_every_model_of_timm_and_torch_in_the_docs_table(family, capsys):
    cells = next(
        line.split(" | ")
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| {family.name} | {family.library} | `{family.public}` |")
    )
    num_sites = sum(map(int, re.findall(r"\d+", cells[3])))
    size = ["--img-size", SMALLER_IMAGES[family.public]] if family.public in SMALLER_IMAGES else []
    assert_about_a_third(shares(capsys, f"{family.library}:{family.public}", *size), num_sites)


def test_a_run_folder_stands_for_its_model(tmp_path, capsys):
    config = "model: vit_mini_patch2_8\nmodel_kwargs: depth=3\nimg_size: 12\n"
    (tmp_path / "config.yaml").write_text(config)
    assert main(["verify", str(tmp_path), "--pattern", "token"]) == 0
    out = capsys.readouterr().out
    assert "What acts is as in the run" in out
    assert (out.count("drops as it should"), out.count("untouched (ratio 0)")) == (2, 1)  # linear decay, as it trains
    assert "of 36 keys" in out
