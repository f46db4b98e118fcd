"""What a slot keeps on GPUs; here the CPU stands for one."""

import copy
import pickle

import pytest
import torch

import dropkey
from dropkey.adapters.device_ratio import DeviceRatio
from dropkey.adapters.slot import HandleId
from dropkey.adapters.slots.drop_slot import DropSlot

HERE = torch.device("cpu")


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def test_the_ratio_is_written_where_it_lies():
    ratio = DeviceRatio("cpu")
    tensor = ratio.on(HERE, number(0.25))
    ratio.fill(number(0.5))
    assert tensor == 0.5
    assert ratio.on(HERE, number(0.5)) is tensor


@pytest.mark.parametrize("pattern", [dropkey.Block(3), dropkey.Cross(3), dropkey.Block(5)])
def test_a_threshold_follows_the_ratio(pattern):
    ratio, grids = DeviceRatio("cpu"), [(4, 5), (7, 7)]
    held = [ratio.seed_threshold(HERE, number(0.25), pattern, grid) for grid in grids]
    ratio.fill(number(0.5))
    for tensor, grid in zip(held, grids, strict=True):
        assert tensor == pattern.seed_threshold(number(0.5), grid)
        assert tensor != pattern.seed_threshold(number(0.25), grid)


def test_patterns_without_a_grid_have_no_threshold():
    assert DeviceRatio("cpu").seed_threshold(HERE, number(0.25), dropkey.Element(), (4, 5)) is None
    assert DeviceRatio("cpu").seed_threshold(HERE, number(0.25), dropkey.Block(3), None) is None


def test_other_devices_read_the_ratio_itself():
    held = number(0.25)
    assert DeviceRatio().on(HERE, held) is held
    assert DeviceRatio().seed_threshold(HERE, held, dropkey.Block(3), (4, 5)) is None


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda slot: pickle.loads(pickle.dumps(slot))])
def test_a_copy_begins_anew(copied):
    slot = DropSlot(dropkey.DropKey(0.3), HandleId(), 0.3, "auto")
    slot.on_devices = DeviceRatio("cpu")
    tensor = slot.on_devices.on(HERE, slot.ratio_tensor)
    other = copied(slot)
    assert not other.on_devices._ratios  # it may be loaded where there is no such GPU
    other.drop_ratio = 0.5
    assert tensor == 0.3
    assert other.on_devices.on(HERE, other.ratio_tensor) == 0.5
    slot.drop_ratio = 0.1
    assert tensor == 0.1


def test_a_given_threshold_is_the_one_that_is_used():
    from dropkey.ops.call import Draw

    draw = Draw.of(dropkey.Block(3), 0.3, 7, HERE, (4, 5))
    assert draw._replace(seed_threshold=torch.tensor(0)).keep(1, 1, 3, 20).all()
    given = draw._replace(seed_threshold=draw.pattern.seed_threshold(draw.drop_ratio, (4, 5)))
    assert torch.equal(given.keep(1, 1, 3, 20), draw.keep(1, 1, 3, 20))
