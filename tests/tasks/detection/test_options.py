"""Every option reaches what it is to change: batches, sites, the optimizer. What runs make of it: test_training.py."""

import pytest
import torch

from dropkey.tasks.detection.task import TASK

pytestmark = [pytest.mark.usefixtures("few_scenes"), pytest.mark.filterwarnings("ignore::UserWarning")]

PLAIN = {"epochs": 1, "batch_size": 8, "img_size": "64", "output": "nowhere"}


@pytest.fixture(scope="module")
def prepare(tiny, few_scenes):
    def prepared(**options):
        return TASK.prepare(TASK.resolve({**PLAIN, "model": str(tiny), **options}))

    return prepared


@pytest.fixture(scope="module")
def plain(prepare):
    return prepare()


def first_batch(prepared):
    return next(iter(prepared.data.train_dataloader()))


@pytest.mark.parametrize("option", ["flip", "photometric", "zoom_out", "iou_crop"])
def test_augmentations_change_images(option, plain, prepare):
    before, after = first_batch(plain), first_batch(prepare(**{option: 1.0}))
    assert torch.equal(before["indices"], after["indices"])
    assert not torch.equal(before["pixel_values"], after["pixel_values"])
    boxes = [torch.cat([target["boxes"] for target in batch["labels"]]) for batch in (before, after)]
    moves = option != "photometric"
    assert (len(boxes[0]) != len(boxes[1]) or not torch.equal(*boxes)) == moves


def test_where_and_how_much_is_dropped(plain, prepare):
    assert {site.kind for site in plain.handle.sites} == {"encoder self", "decoder self"}
    assert {site.kind for site in prepare(where="decoder").handle.sites} == {"decoder self"}
    assert prepare(drop_ratio=0.5).handle.state_dict() != plain.handle.state_dict()
    assert prepare(regularizer="dropout").handle.state_dict() != plain.handle.state_dict()
    assert prepare(regularizer="none").handle is None


def test_rates_and_decay_are_those_of_their_groups(prepare):
    module = prepare(lr=0.002, backbone_lr=0.01, weight_decay=0.5).module
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in groups_of(module) for p in group["params"]}
    for name, parameter in module.network.named_parameters():
        if parameter.requires_grad:
            expected = 0.01 if ".backbone." in name else 0.002, 0.5 if parameter.ndim > 1 else 0.0
            assert rates[id(parameter)] == expected, name


def groups_of(module):
    return module.build_optimizer().param_groups
