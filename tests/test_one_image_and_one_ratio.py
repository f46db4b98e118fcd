"""The way of one image and of one drop ratio through ``dropkey train``, as docs/explanation tells and this counts."""

import collections
import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from few_images import FewImages
from in_hand import holders
from PIL import Image

from dropkey import schedules
from dropkey.cli import main
from dropkey.data import sources
from dropkey.ops.cpu import library
from dropkey.tasks.classification.config import ClassificationConfig

PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "one-image-and-one-ratio.md"
RATIO = 0.2875
GRAY = 77  # of every pixel of the image
NORMALIZED = (GRAY / 255 - 0.5) / 0.5

pytestmark = pytest.mark.skipif(library.unavailable() is not None, reason=str(library.unavailable()))


@pytest.fixture
def train(tmp_path, monkeypatch):
    digits = sources.load_source("digits")
    digits.train.pixels[3] = GRAY
    few = dataclasses.replace(digits, train=FewImages(digits.train, 8), val=FewImages(digits.val, 8))
    monkeypatch.setitem(sources.SOURCES, "digits", lambda data_dir: few)
    numbers = iter(range(9))

    def run():
        options = ["--epochs", "1", "--batch-size", "8", "--drop-ratio", str(RATIO)]
        assert main(["train", *options, "--output", str(tmp_path / str(next(numbers)))]) == 0

    run()  # what is done once is done
    return run


def is_image(value):
    if isinstance(value, Image.Image):
        return bool((np.asarray(value) == GRAY).all())
    if isinstance(value, np.ndarray) and value.shape == (8, 8, 3):
        return bool(np.allclose(value, NORMALIZED, atol=1e-4))
    if isinstance(value, torch.Tensor) and value.shape[-3:] == (3, 8, 8):
        return bool((value.reshape(-1, 192) - NORMALIZED).abs().amax(1).lt(1e-4).any())
    return False


def is_ratio(value):
    if isinstance(value, torch.Tensor):
        return value.dtype == torch.float64 and value.numel() == 1 and value.item() == RATIO
    return (isinstance(value, float) and value == RATIO) or (isinstance(value, str) and value == str(RATIO))


def told(heading):
    section = re.search(rf"## {heading}\n(.*?)(?=\n## |\Z)", PAGE.read_text(), flags=re.DOTALL)[1]
    return re.findall(r"^\| `(\S+\.py)` \|", section, flags=re.MULTILINE)


def test_files_that_have_the_image_in_hand(train):
    assert holders(train, is_image) == told("One image")


def test_files_that_have_the_ratio_in_hand_until_it_acts(train):
    files = holders(train, is_ratio)
    assert files[: files.index("ops/cpu/door.py") + 1] == told("One ratio")


def test_options_are_resolved_once(train, monkeypatch):
    made, checked = [], []
    right = ClassificationConfig.__post_init__, schedules.check_drop_ratio
    monkeypatch.setattr(ClassificationConfig, "__post_init__", lambda self: [made.append(self), right[0](self)])
    monkeypatch.setattr(schedules, "check_drop_ratio", lambda ratio: [checked.append(ratio), right[1](ratio)][1])
    train()
    assert len(made) == 1
    assert collections.Counter(checked)[RATIO] <= 4  # when the config is made, and when the regularizer is
