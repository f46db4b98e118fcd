"""Schedules: pure functions from depth to ratios."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dropkey
from dropkey import schedules

NAMES = ("constant", "linear_decay", "linear_growth", "cosine_decay")


def test_linear_decay_of_the_paper():
    assert schedules.linear_decay(0.3, 4) == pytest.approx([0.3, 0.2, 0.1, 0.0])
    assert schedules.linear_growth(0.3, 4) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert schedules.constant(0.3, 3) == [0.3, 0.3, 0.3]
    assert schedules.cosine_decay(0.4, 3) == pytest.approx([0.4, 0.2, 0.0])


@pytest.mark.parametrize("name", NAMES)
def test_depth_one_gives_the_ratio(name):
    assert getattr(schedules, name)(0.3, depth=1) == [0.3]


@given(st.sampled_from(NAMES), st.floats(0, 0.99), st.integers(2, 64))
def test_ends_and_range(name, ratio, depth):
    ratios = getattr(schedules, name)(ratio, depth)
    assert len(ratios) == depth
    assert all(0 <= r <= ratio for r in ratios)
    falls = {"linear_decay": (ratio, 0.0), "cosine_decay": (ratio, 0.0), "linear_growth": (0.0, ratio)}
    assert (ratios[0], ratios[-1]) == falls.get(name, (ratio, ratio))
    if name.endswith("decay"):
        assert all(one >= other for one, other in itertools.pairwise(ratios))


def test_lists_and_functions_are_schedules():
    assert schedules.ratios([0.1, 0.2], 0.9, 2) == [0.1, 0.2]
    assert schedules.ratios(lambda ratio, depth: [ratio / depth] * depth, 0.5, 2) == [0.25, 0.25]


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("linear_deccay", "did you mean 'linear_decay'"),
        ([0.1], "gives 1 drop ratios, but the model has 2 blocks"),
        ([0.1, 1.5], r"must be in \[0, 1\)"),
    ],
)
def test_bad_schedules(schedule, message):
    with pytest.raises(dropkey.ArgumentError, match=message):
        schedules.ratios(schedule, 0.3, 2)


@pytest.mark.parametrize("regularizer", [dropkey.DropKey, dropkey.AttentionDropout])
def test_descriptions_are_checked_when_made(regularizer):
    with pytest.raises(dropkey.ArgumentError, match="drop_ratio"):
        regularizer(1.2)
    with pytest.raises(dropkey.ArgumentError, match="unknown schedule"):
        regularizer(0.1, schedule="steep")
    with pytest.raises(dropkey.ArgumentError, match="drop_ratio"):
        regularizer(schedule=[0.1, 2.0])
    assert hash(regularizer(schedule=[0.1, 0.2])) == hash(regularizer(schedule=(0.1, 0.2)))


def test_pattern_of_a_description():
    assert dropkey.DropKey(0.1).pattern == dropkey.Element()
    assert dropkey.DropKey(0.1, pattern="block").pattern == dropkey.Block(3)
    with pytest.raises(dropkey.ArgumentError, match="unknown pattern"):
        dropkey.DropKey(0.1, pattern="blok")
