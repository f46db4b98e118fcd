"""Digit pairs: relations by a second reading of the boxes, no ambiguous scene, the same scenes everywhere."""

import numpy as np
import pytest

from dropkey.data.digit_pairs import VERBS, DigitPairs, digit_pairs, verbs_between

SCENES = 60


@pytest.fixture(scope="module")
def scenes():
    return DigitPairs("train", SCENES)


def gap(one, other):
    """Chebyshev distance of two boxes, 0 where they touch or overlap."""
    return max(0, max(one[0], other[0]) - min(one[2], other[2]), max(one[1], other[1]) - min(one[3], other[3]))


def test_pairs_are_exactly_the_digits_near_a_zero(scenes):
    for index in range(SCENES):
        boxes, pairs = scenes.boxes(index), scenes.pairs(index)
        expected = {
            (zero, other)
            for zero in np.flatnonzero(boxes.labels == 0)
            for other in np.flatnonzero(boxes.labels != 0)
            if gap(boxes.xyxy[zero], boxes.xyxy[other]) <= 6
        }
        assert set(zip(pairs.subjects, pairs.objects, strict=True)) == expected
        for zero in np.flatnonzero(boxes.labels == 0):
            for other in np.flatnonzero(boxes.labels != 0):
                if (zero, other) not in expected:
                    assert gap(boxes.xyxy[zero], boxes.xyxy[other]) >= 14


def test_verbs_hold(scenes):
    for index in range(SCENES):
        boxes, pairs = scenes.boxes(index), scenes.pairs(index)
        for subject, other, row in zip(pairs.subjects, pairs.objects, pairs.verbs, strict=True):
            said = {VERBS[verb] for verb in np.flatnonzero(row)}
            (left, t, r, b), (ol, ot, o_r, ob) = boxes.xyxy[subject], boxes.xyxy[other]
            down, across = (ot + ob) - (t + b), (ol + o_r) - (left + r)
            assert ("contains" in said) == (left < ol and t < ot and r > o_r and b > ob)
            assert ("larger_than" in said) == ((b - t) >= 1.35 * (ob - ot))
            if "contains" not in said:
                assert ("touches" in said) == (gap(boxes.xyxy[subject], boxes.xyxy[other]) == 0)
                assert ("above" in said) == (down > 0 and abs(down) >= 1.5 * abs(across))
                assert ("left_of" in said) == (across > 0 and abs(across) >= 1.5 * abs(down))
                assert len(said & {"above", "below", "left_of", "right_of"}) == 1


def test_scenes_are_varied(scenes):
    verbs = np.concatenate([scenes.pairs(index).verbs for index in range(SCENES)])
    assert verbs.any(0).all()
    counts = [len(scenes.pairs(index)) for index in range(SCENES)]
    assert min(counts) == 0
    assert 1.4 < np.mean(counts) < 2.4


def test_scenes_depend_on_split_and_index_alone(scenes):
    again = DigitPairs("train", SCENES)
    for index in (7, 3):
        assert np.array_equal(again.boxes(index).xyxy, scenes.boxes(index).xyxy)
        assert np.array_equal(np.asarray(again.image(index)), np.asarray(scenes.image(index)))
    other = DigitPairs("val", SCENES)
    assert not np.array_equal(np.asarray(other.image(3)), np.asarray(scenes.image(3)))


def test_the_source():
    source = digit_pairs()
    assert (len(source.train.sizes), len(source.val.sizes)) == (3200, 200)
    assert (source.flips, source.subject, source.may_miss) == (False, 0, False)
    assert np.asarray(source.possible).sum() == len(VERBS) * 9


@pytest.mark.parametrize(
    ("other", "verbs"),
    [
        ((10, 40, 20, 60), ["above"]),
        ((10, 30, 20, 50), ["above", "touches"]),
        ((40, 10, 50, 30), ["left_of"]),
        ((-15, 10, -5, 25), None),  # heights of 20 and 15: neither larger nor alike
        ((0, 10, 10, 24), ["right_of", "touches", "larger_than"]),
        ((10, 31, 20, 51), None),  # a gap of 1
        ((21, 31, 31, 51), None),  # as far across as down, nearly
        ((12, 12, 18, 20), ["contains", "larger_than"]),
    ],
)
def test_relations_by_hand(other, verbs):
    assert verbs_between((10, 10, 20, 30), other) == verbs
