"""Starting from a weights file: any common nesting, another grid, another head; and files that do not fit."""

import pytest
import safetensors.torch
import timm
import torch

import dropkey.models  # noqa: F401
from dropkey.errors import RunError
from dropkey.models.weights import load_weights

NAME = "vit_mini_patch2_8"


@pytest.fixture(scope="module")
def donor():
    torch.manual_seed(3)
    return timm.create_model(NAME, num_classes=10)


def fresh(**arguments):
    torch.manual_seed(4)
    return timm.create_model(NAME, **{"num_classes": 10, **arguments})


def same(one, other, keys):
    return all(torch.equal(one.state_dict()[key], other.state_dict()[key]) for key in keys)


@pytest.mark.parametrize("nest", ["", "state_dict", "model", "state_dict_ema", "ours", "safetensors"])
def test_every_nesting(donor, nest, tmp_path):
    path, weights = tmp_path / f"w.{'safetensors' if nest == 'safetensors' else 'pth'}", donor.state_dict()
    if nest == "safetensors":
        safetensors.torch.save_file(weights, path)
    elif nest == "ours":
        torch.save({"state_dict": {f"network.{key}": value for key, value in weights.items()}, "epoch": 3}, path)
    else:
        torch.save({nest: weights} if nest else weights, path)
    network = fresh()
    assert load_weights(network, path) == []
    assert same(network, donor, weights)


def test_another_head_starts_anew_and_says_so(donor, tmp_path):
    torch.save(donor.state_dict(), tmp_path / "w.pth")
    network = fresh(num_classes=3)
    before = network.head.weight.clone()
    notes = load_weights(network, tmp_path / "w.pth")
    assert len(notes) == 1
    assert "head" in notes[0]
    assert torch.equal(network.head.weight, before)
    assert same(network, donor, [key for key in donor.state_dict() if not key.startswith("head.")])


def test_position_embeddings_are_resized(donor, tmp_path):
    torch.save(donor.state_dict(), tmp_path / "w.pth")
    network = fresh(img_size=16)
    assert load_weights(network, tmp_path / "w.pth") == []
    grid = donor.pos_embed.detach().reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
    wide = network.pos_embed.detach().reshape(1, 8, 8, -1).permute(0, 3, 1, 2)
    back = torch.nn.functional.interpolate(wide, size=(4, 4), mode="bicubic", antialias=True, align_corners=False)
    assert torch.corrcoef(torch.stack([grid.flatten(), back.flatten()]))[0, 1] > 0.95


def lacking(weights):
    return {key: value for key, value in weights.items() if key != "blocks.1.attn.qkv.weight"}


def foreign(weights):
    return {**weights, "decoder.weight": torch.zeros(2)}


def misshapen(weights):
    return {**weights, "blocks.0.norm1.weight": torch.zeros(7)}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lacking, "lacks blocks.1.attn.qkv.weight"),
        (foreign, "decoder.weight"),
        (misshapen, "blocks.0.norm1.weight is (7,)"),
    ],
)
def test_weights_that_do_not_fit(donor, change, named, tmp_path):
    torch.save(change(donor.state_dict()), tmp_path / "w.pth")
    with pytest.raises(RunError, match="does not fit the model") as error:
        load_weights(fresh(), tmp_path / "w.pth")
    assert named in str(error.value)


class Evil:
    def __reduce__(self):
        return eval, ("1/0",)


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save({"state_dict": Evil()}, tmp_path / "w.pth")
    with pytest.raises(RunError, match="no weights that can be read"):
        load_weights(fresh(), tmp_path / "w.pth")
    (tmp_path / "w.safetensors").write_bytes(b"nonsense")
    with pytest.raises(RunError, match="no weights that can be read"):
        load_weights(fresh(), tmp_path / "w.safetensors")
    with pytest.raises(RunError, match="no weights file"):
        load_weights(fresh(), tmp_path / "none.pth")
