"""Evaluation batches of several processes: every image once, and as many batches in each process."""

import types

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dropkey.data.augmentation import Augmentation, ImageFormat
from dropkey.data.loaders import ImageData
from dropkey.data.source import ImageSource
from dropkey.errors import RunError


class Numbered:
    """Black images whose labels are their places."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return Image.new("RGB", (4, 4)), index


def validation_labels(count, rank, world_size, batch_size):
    source = ImageSource("numbers", Numbered(count), Numbered(count), ["a"], 4, False, "vit_mini_patch2_8")
    data = ImageData(source, ImageFormat(4), Augmentation(), batch_size, seed=0)
    root_device = types.SimpleNamespace(type="cpu")
    strategy = types.SimpleNamespace(root_device=root_device)
    data.trainer = types.SimpleNamespace(global_rank=rank, world_size=world_size, strategy=strategy)
    return [labels.tolist() for _, labels in data.val_dataloader()[0]]


@given(st.integers(4, 40), st.integers(1, 4), st.integers(1, 8))
def test_processes_share_evaluation_and_stay_in_step(count, world_size, batch_size):
    ranks = [validation_labels(count, rank, world_size, batch_size) for rank in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1
    assert sorted(label for batches in ranks for batch in batches for label in batch) == list(range(count))
    assert all(1 <= len(batch) <= 2 * batch_size for batches in ranks for batch in batches)


def test_fewer_images_than_processes():
    with pytest.raises(RunError, match=r"too few examples to evaluate \(1\) for 2 processes"):
        validation_labels(1, 0, 2, 4)
