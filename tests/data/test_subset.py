"""Fewer images of a source: which, how many, and that every run sees the same."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropkey.data.array_images import ArrayImages
from dropkey.data.source import ImageSource
from dropkey.data.sources import load_source
from dropkey.data.subset import few_per_class, hold_out
from dropkey.errors import ArgumentError, DataError
from dropkey.tasks.classification.task import TASK


def numbered(labels):
    """A source whose images tell their place by their gray value."""
    labels = np.array(labels)
    pixels = np.broadcast_to(np.arange(len(labels), dtype=np.uint8)[:, None, None], (len(labels), 2, 2))
    images = ArrayImages(pixels, labels)
    return ImageSource("numbers", images, ArrayImages(pixels[:3], labels[:3]), ["a", "b", "c"], 2, False)


def places(images):
    return [int(np.asarray(images[index][0])[0, 0, 0]) for index in range(len(images))]


def labels_of(images):
    return [images[index][1] for index in range(len(images))]


LABELS = st.lists(st.integers(0, 2), min_size=12, max_size=60).map(lambda rest: [0, 1, 2, 0, 1, 2, *rest])


@given(LABELS, st.integers(1, 2))
def test_so_many_of_each_class_and_more_contain_fewer(labels, count):
    source = numbered(labels)
    few = few_per_class(source, count)
    assert Counter(labels_of(few.train)) == dict.fromkeys(range(3), count)
    assert places(few.train) == sorted(set(places(few.train)))
    assert set(places(few_per_class(source, 1).train)) <= set(places(few.train))
    assert few.val is source.val
    assert [few.train.label(index) for index in range(len(few.train))] == labels_of(few.train)
    assert [labels[place] for place in places(few.train)] == labels_of(few.train)


@given(LABELS, st.floats(0.01, 0.99))
def test_a_share_of_each_class_is_held_out(labels, share):
    source = hold_out(numbered(labels), share)
    train, val = places(source.train), places(source.val)
    assert sorted(train + val) == list(range(len(labels)))
    for label in range(3):
        total, held = labels.count(label), labels_of(source.val).count(label)
        assert 1 <= held <= total - 1
        assert abs(held - share * total) <= 1


def test_which_images_is_told_apart_by_the_fingerprint_and_is_the_same_in_another_process():
    source = load_source("digits")
    prints = [s.fingerprint() for s in (source, few_per_class(source, 20), few_per_class(source, 21))]
    held = hold_out(source, 0.5)
    assert len({*prints, held.fingerprint(), few_per_class(held, 20).fingerprint()}) == 5
    code = (
        "from dropkey.data.sources import load_source; from dropkey.data.subset import few_per_class;"
        "print(few_per_class(load_source('digits'), 20).fingerprint())"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == prints[1]


def test_options_choose_and_name_what_is_too_much():
    source = TASK.load_source(TASK.resolve({"train_per_class": 20, "val_share": 0.7}))
    assert len(source.train) == 200
    assert Counter(labels_of(source.train)) == dict.fromkeys(range(10), 20)
    assert 1000 <= len(source.val) <= 1010
    with pytest.raises(
        DataError, match=r"--train-per-class 500 is more than the 1\d\d training images of the class '0'"
    ):
        TASK.load_source(TASK.resolve({"train_per_class": 500}))
    with pytest.raises(DataError, match=r"--val-share needs two training images of each class, and 'c' has 1"):
        hold_out(numbered([0, 0, 1, 1, 2]), 0.5)
    with pytest.raises(ArgumentError, match="--val-share must be a number in"):
        TASK.resolve({"val_share": 1.0})
