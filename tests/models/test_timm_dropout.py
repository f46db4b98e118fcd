"""Dropout that timm's models bring along: it acts as its option says, or the model is refused by name."""

import json

import pytest
import timm
import torch
from torch import nn

from dropkey.cli import main
from dropkey.errors import ArgumentError
from dropkey.models.timm_dropout import check_dropout, dropout_arguments

IMAGES = torch.zeros(1, 3, 8, 8)


def built(patch_drop, head_drop, name="vit_mini_patch2_8"):
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=5, **dropout_arguments(patch_drop, head_drop))


def test_none_by_default():
    assert dropout_arguments(0.0, 0.0) == {}


@pytest.mark.parametrize(("share", "kept"), [(0.25, 12), (0.5, 8), (0.75, 4)])
def test_so_many_patches_reach_the_first_block(share, kept):
    """In training alone, others for each image: seen by what comes in, patch by patch."""
    model = built(share, 0.0)
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    images = torch.randn(3, 3, 8, 8)
    model.train()(images)
    model.eval()(images)
    dropped, whole = seen
    assert (dropped.shape[1], whole.shape[1]) == (kept, 16)
    places = [[int((whole[i] - token).abs().sum(-1).argmin()) for token in dropped[i]] for i in range(3)]
    assert len(set(map(tuple, places))) == 3
    assert all(len(set(row)) == kept for row in places)


def test_so_many_features_reach_the_head():
    model = built(0.0, 0.5)
    seen = []
    model.head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    images = torch.randn(200, 3, 8, 8)
    model.train()(images)
    model.eval()(images)
    dropped, whole = seen
    assert abs((dropped == 0).double().mean().item() - 0.5) < 6 * (0.25 / dropped.numel()) ** 0.5
    torch.testing.assert_close(dropped[dropped != 0], 2 * whole[dropped != 0])


def test_the_check_leaves_a_model_in_training_and_its_statistics_alone():
    model = timm.create_model("resnet10t", num_classes=5, drop_rate=0.4)
    before = {name: value.clone() for name, value in model.named_buffers()}
    check_dropout(model, "resnet10t", 0.0, 0.4, torch.zeros(1, 3, 32, 32))
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert not any(module._forward_hooks for module in model.modules())


class Swallows(nn.Module):
    """Takes any argument and drops nothing: a module is there, and its forward never calls it."""

    def __init__(self, needs_all=False):
        super().__init__()
        self.needs_all = needs_all
        self.patch_drop = timm.layers.PatchDropout(0.3)
        self.head_drop = nn.Dropout(0.3)

    def forward(self, images):
        return self.patch_drop(images.flatten(2)).view_as(images) if self.needs_all else images


@pytest.mark.parametrize(("shares", "flag"), [((0.3, 0.0), "--patch-drop"), ((0.0, 0.3), "--head-drop")])
def test_a_model_that_never_uses_it_is_refused(shares, flag):
    with pytest.raises(ArgumentError, match=rf"{flag}: my_vit has no dropout"):
        check_dropout(Swallows(), "my_vit", *shares, IMAGES)


def test_a_model_that_needs_every_patch_is_refused():
    with pytest.raises(ArgumentError, match="my_vit fails with --patch-drop"):
        check_dropout(Swallows(needs_all=True), "my_vit", 0.3, 0.0, IMAGES)


REFUSED = {
    "a constructor that does not know it": (["--model", "resnet18", "--patch-drop", "0.3"], "--patch-drop: resnet18"),
    "one that takes and ignores it": (["--model", "ceit_tiny", "--patch-drop", "0.3"], "--patch-drop: ceit_tiny"),
    "a pattern that needs the grid": (
        ["--pattern", "block", "--patch-drop", "0.3"],
        "block needs every patch",
    ),
    "the same by another name": (["--model-kwargs", "drop_rate=0.3"], "an option of its own: --head-drop"),
}


@pytest.mark.parametrize(("words", "named"), REFUSED.values(), ids=REFUSED)
def test_refused_by_name(words, named, tmp_path, capsys):
    assert main(["train", *words, "--output", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert named in err
    assert len(err.splitlines()) == 1


@pytest.mark.usefixtures("few_digits")
def test_they_are_arms_of_a_comparison(tmp_path):
    arms = ["none", "none:patch-drop=0.5", "none:head-drop=0.5"]
    command = ["compare", "--arms", *arms, "--seeds", "1", "--epochs", "1", "--output", str(tmp_path)]
    assert main(command) == 0
    losses = [json.loads(file.read_text())["final_val_loss"] for file in tmp_path.glob("*/seed-0/summary.json")]
    assert len(set(losses)) == 3
