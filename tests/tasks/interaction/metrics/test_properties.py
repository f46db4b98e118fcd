"""The measures against an independent second implementation, and what must hold whatever the data."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import interaction as oracle

from dropkey.tasks.interaction.metrics import Pairs, Persons, hico_det_ap, vcoco_role_ap

TRIPLETS = [(0, 0), (0, 1), (1, 1), (2, 0)]
RARE = [1, 3]
INTERPOLATIONS = ("11-point", "all-point")

# A few places and sizes, so that boxes overlap, touch and coincide often.
box = st.builds(
    lambda x, y, w, h: [x, y, x + w, y + h], *[st.sampled_from([1, 2, 6, 12])] * 2, *[st.sampled_from([4, 6, 8])] * 2
)
row = {
    "image": st.integers(0, 2),
    "subject": box,
    "object_box": box | st.just([0, 0, 0, 0]),
    "object": st.integers(0, 2),
    "verb": st.integers(0, 2),
}
truths = st.lists(st.fixed_dictionaries(row), max_size=8)
guesses = st.lists(st.fixed_dictionaries({**row, "score": st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.8])}), max_size=12)
persons = st.lists(
    st.fixed_dictionaries({"image": st.integers(0, 2), "box": box, "annotated": st.booleans()}), max_size=4
)


def pairs(rows, scores=False):
    columns = {name: [row[name] for row in rows] for name in ("image", "subject", "object_box", "object", "verb")}
    return Pairs(*columns.values(), [row["score"] for row in rows] if scores else None)


def people(rows):
    boxes = np.array([row["box"] for row in rows]).reshape(-1, 4)
    return Persons(np.array([r["image"] for r in rows], int), boxes, [r["annotated"] for r in rows])


def hico(truth, guess, **options):
    return hico_det_ap(pairs(truth), pairs(guess, True), TRIPLETS, RARE, **options)


def near(value, expected):
    return value is expected is None or value == pytest.approx(expected, abs=1e-12)


def by_class(values):
    return [None if np.isnan(value) else value for value in values]


@settings(max_examples=40, deadline=None)
@given(truths, guesses, st.sampled_from(["default", "known_object"]), st.sampled_from(INTERPOLATIONS))
def test_hico_det_is_what_the_oracle_counts(truth, guess, setting, interpolation):
    ours = hico(truth, guess, setting=setting, interpolation=interpolation)
    full, rare, non_rare, by_triplet = oracle.hico_det(truth, guess, TRIPLETS, RARE, setting, interpolation)
    assert all(near(*both) for both in zip(by_class(ours.by_triplet), by_triplet, strict=True))
    assert near(ours.full, full)
    assert near(ours.rare, rare)
    assert near(ours.non_rare, non_rare)


@settings(max_examples=40, deadline=None)
@given(truths, guesses, persons, st.sampled_from(INTERPOLATIONS))
def test_role_ap_is_what_the_oracle_counts(truth, guess, others, interpolation):
    result = vcoco_role_ap(pairs(truth), pairs(guess, True), [0, 2], people(others), interpolation=interpolation)
    for scenario, mean, by_role in ((1, result.scenario_1, result.by_role_1), (2, result.scenario_2, result.by_role_2)):
        expected, expected_by_role = oracle.vcoco(truth, guess, [0, 2], scenario, others, interpolation)
        assert near(mean, expected)
        assert all(near(*both) for both in zip(by_class(by_role), expected_by_role, strict=True))


def results(truth, guess):
    """Every measure of these predictions."""
    values = [
        hico(truth, guess, setting=setting, interpolation=interpolation).full
        for setting in ("default", "known_object")
        for interpolation in INTERPOLATIONS
    ]
    roles = vcoco_role_ap(pairs(truth), pairs(guess, True), [0, 1, 2])
    return [0.0 if value is None else value for value in (*values, roles.scenario_1, roles.scenario_2)]


@settings(max_examples=15, deadline=None)
@given(truths, guesses, st.randoms(use_true_random=False))
def test_order_and_numbers_of_images_change_nothing(truth, guess, random):
    """Also the order of equal scores, of which there are many here."""
    number = random.sample([0, 5, 900], 3)
    renamed = [[{**row, "image": number[row["image"]]} for row in rows] for rows in (truth, guess)]
    for rows in renamed:
        random.shuffle(rows)
    assert results(*renamed) == pytest.approx(results(truth, guess), abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(truths, guesses, st.integers(0, 2), st.integers(0, 2), st.integers(0, 3), st.sampled_from([0.1, 0.25, 0.9]))
def test_a_false_positive_never_raises_a_measure(truth, guess, verb, category, image, score):
    place = [900, 900, 910, 910]
    wrong = {
        "image": image, "subject": place, "object_box": place, "object": category, "verb": verb, "score": score
    }  # fmt: skip
    for before, after in zip(results(truth, guess), results(truth, [*guess, wrong]), strict=True):
        assert after <= before + 1e-12


@settings(max_examples=15, deadline=None)
@given(truths, guesses.filter(bool), st.data())
def test_a_duplicate_never_raises_a_measure(truth, guess, data):
    once = [dict(row) for row in {str(row): row for row in truth}.values()]  # a truth listed twice can be found twice
    again = data.draw(st.sampled_from(guess))
    for before, after in zip(results(once, guess), results(once, [*guess, again]), strict=True):
        assert after <= before + 1e-12


@settings(max_examples=40, deadline=None)
@given(truths)
def test_the_truth_is_perfect(truth):
    boxed = [row for row in truth if any(row["object_box"])]
    guess = [{**row, "score": 0.5} for row in boxed]
    for setting in ("default", "known_object"):
        assert hico(boxed, guess, setting=setting).full in (1.0, None)


def scaled_down(images, seed=0):
    """Truth and predictions in HICO-DET's proportions: 3.5 pairs an image, 100 predictions, 600 triplets."""
    random = np.random.default_rng(seed)
    triplets = [(index % 117, index // 117 * 13 + index % 13) for index in range(600)]
    table = np.array(triplets)

    def rows(count):
        place = random.uniform(0, 500, (2, count, 2))
        size = random.uniform(20, 140, (2, count, 2))
        chosen = table[random.integers(0, 600, count)]
        boxes = np.concatenate([place, place + size], 2)
        return [random.integers(0, images, count), *boxes, chosen[:, 1], chosen[:, 0]]

    truth, guess = rows(int(3.5 * images)), rows(100 * images)
    return Pairs(*truth), Pairs(*guess, random.uniform(size=100 * images)), triplets


def test_fast_enough():
    """A sixteenth of HICO-DET's test images in a sixteenth of half a minute."""
    truth, guess, triplets = scaled_down(9658 // 16)
    start = time.process_time()
    hico_det_ap(truth, guess, triplets, setting="known_object")
    vcoco_role_ap(truth, guess, range(24))
    assert time.process_time() - start < 30 / 16


@pytest.mark.slow
def test_all_of_hico_det_in_under_a_minute():
    truth, guess, triplets = scaled_down(9658)
    start = time.process_time()
    for interpolation in INTERPOLATIONS:
        hico_det_ap(truth, guess, triplets, setting="known_object", interpolation=interpolation)
    assert time.process_time() - start < 60
