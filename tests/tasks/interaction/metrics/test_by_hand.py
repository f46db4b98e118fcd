"""Cases small enough to count by hand."""

import numpy as np
import pytest

from dropkey import DropKeyError
from dropkey.tasks.interaction.metrics import Pairs, Persons, hico_det_ap, vcoco_role_ap

PERSON, CUP, CHAIR = [0, 0, 10, 20], [20, 0, 30, 10], [40, 0, 60, 20]
FAR = [500, 500, 510, 520]
HOLD, SIT = 0, 1
A_CUP, A_CHAIR = 0, 1
TRIPLETS = [(HOLD, A_CUP), (SIT, A_CHAIR)]


def pairs(*rows, scores=None):
    """Rows of (image, person, object box, object, verb[, score])."""
    columns = list(zip(*rows, strict=True)) if rows else [[], [], [], [], []]
    return Pairs(*(list(column) for column in columns))


def ap(truth, predictions, **options):
    return hico_det_ap(truth, predictions, TRIPLETS, **options)


def test_perfect():
    truth = pairs((0, PERSON, CUP, A_CUP, HOLD), (1, PERSON, CHAIR, A_CHAIR, SIT))
    guess = pairs((0, PERSON, CUP, A_CUP, HOLD, 0.9), (1, PERSON, CHAIR, A_CHAIR, SIT, 0.2))
    for setting in ("default", "known_object"):
        for interpolation in ("11-point", "all-point"):
            result = ap(truth, guess, rare=[1], setting=setting, interpolation=interpolation)
            assert (result.full, result.rare, result.non_rare) == (1.0, 1.0, 1.0)


def test_a_surer_mistake_halves_the_precision():
    truth = pairs((0, PERSON, CUP, A_CUP, HOLD))
    guess = pairs((0, FAR, CUP, A_CUP, HOLD, 0.9), (0, PERSON, CUP, A_CUP, HOLD, 0.5))
    assert ap(truth, guess).full == 0.5
    assert ap(truth, guess, interpolation="all-point").full == 0.5


def test_a_mistake_that_is_less_sure_costs_nothing():
    truth = pairs((0, PERSON, CUP, A_CUP, HOLD))
    guess = pairs((0, FAR, CUP, A_CUP, HOLD, 0.3), (0, PERSON, CUP, A_CUP, HOLD, 0.5))
    assert ap(truth, guess).full == 1.0


def test_eleven_points_and_all_points_differ():
    """Three of ten found, the second guess wrong: precision 1, 1/2, 2/3, 3/4 at recall .1, .1, .2, .3."""
    truth = pairs(*[(image, PERSON, CUP, A_CUP, HOLD) for image in range(10)])
    guess = pairs(
        (0, PERSON, CUP, A_CUP, HOLD, 0.9),
        (0, FAR, FAR, A_CUP, HOLD, 0.8),
        (1, PERSON, CUP, A_CUP, HOLD, 0.7),
        (2, PERSON, CUP, A_CUP, HOLD, 0.6),
    )
    assert ap(truth, guess).full == pytest.approx((1 + 1 + 3 / 4 + 3 / 4) / 11)  # recalls of 0, .1, .2 and .3
    assert ap(truth, guess, interpolation="all-point").full == pytest.approx(0.1 * 1 + 0.1 * 3 / 4 + 0.1 * 3 / 4)


def test_equal_scores_are_one_step():
    truth = pairs((0, PERSON, CUP, A_CUP, HOLD))
    right, wrong = (0, PERSON, CUP, A_CUP, HOLD, 0.5), (0, FAR, CUP, A_CUP, HOLD, 0.5)
    assert ap(truth, pairs(right, wrong)).full == ap(truth, pairs(wrong, right)).full == 0.5


def test_a_duplicate_is_wrong():
    truth = pairs((0, PERSON, CUP, A_CUP, HOLD), (1, PERSON, CUP, A_CUP, HOLD))
    once, again = (0, PERSON, CUP, A_CUP, HOLD, 0.9), (0, PERSON, [20, 0, 30, 9], A_CUP, HOLD, 0.8)
    other = (1, PERSON, CUP, A_CUP, HOLD, 0.7)
    assert ap(truth, pairs(once, again, other), interpolation="all-point").full == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_the_pair_it_overlaps_with_most_counts_even_if_that_one_is_taken():
    """As in the published code: the second guess overlaps with both pairs, and most with the one that is found."""
    near = [0, 0, 10, 26]  # IoU with PERSON 20/26
    truth = pairs((0, PERSON, CUP, A_CUP, HOLD), (0, near, CUP, A_CUP, HOLD))
    guess = pairs((0, PERSON, CUP, A_CUP, HOLD, 0.9), (0, [0, 0, 10, 21], CUP, A_CUP, HOLD, 0.8))
    assert ap(truth, guess, interpolation="all-point").full == 0.5


def test_both_boxes_must_overlap_by_half():
    truth = pairs((0, PERSON, CUP, A_CUP, HOLD))
    half, less = [0, 0, 10, 10], [0, 0, 10, 9.9]
    assert ap(truth, pairs((0, half, CUP, A_CUP, HOLD, 1.0))).full == 1.0
    assert ap(truth, pairs((0, less, CUP, A_CUP, HOLD, 1.0))).full == 0.0
    assert ap(truth, pairs((0, PERSON, [20, 0, 30, 4.9], A_CUP, HOLD, 1.0))).full == 0.0


def test_boxes_that_name_their_last_pixel():
    truth = pairs((0, [0, 0, 9, 9], CUP, A_CUP, HOLD))
    guess = pairs((0, [0, 0, 9, 4], CUP, A_CUP, HOLD, 1.0))  # 10 x 5 of 10 x 10 pixels
    assert ap(truth, guess, inclusive_boxes=True).full == 1.0
    assert ap(truth, guess).full == 0.0


@pytest.mark.parametrize(("object_class", "verb"), [(A_CHAIR, HOLD), (A_CUP, SIT), (A_CHAIR, SIT)])
def test_another_object_or_verb_is_wrong(object_class, verb):
    truth = pairs((0, PERSON, CUP, A_CUP, HOLD))
    result = hico_det_ap(truth, pairs((0, PERSON, CUP, object_class, verb, 1.0)), [(HOLD, A_CUP), (SIT, A_CUP)])
    assert result.full == 0.0
    assert np.isnan(result.by_triplet[1])  # no truth: left out of the mean


def test_mistakes_on_images_without_a_pair_count():
    truth = pairs((0, PERSON, CUP, A_CUP, HOLD))
    guess = pairs((0, PERSON, CUP, A_CUP, HOLD, 0.5), (7, PERSON, CUP, A_CUP, HOLD, 0.9))
    assert ap(truth, guess).full == 0.5


def test_known_object_looks_only_at_images_with_the_object():
    truth = pairs((0, PERSON, CUP, A_CUP, HOLD), (1, PERSON, CHAIR, A_CHAIR, SIT))
    guess = pairs((0, PERSON, CUP, A_CUP, HOLD, 0.5), (1, PERSON, CUP, A_CUP, HOLD, 0.9))
    assert ap(truth, guess).by_triplet.tolist() == [0.5, 0.0]
    assert ap(truth, guess, setting="known_object").by_triplet.tolist() == [1.0, 0.0]


def test_rare_and_non_rare():
    truth = pairs((0, PERSON, CUP, A_CUP, HOLD), (1, PERSON, CHAIR, A_CHAIR, SIT))
    result = ap(truth, pairs((0, PERSON, CUP, A_CUP, HOLD, 1.0)), rare=[1])
    assert (result.full, result.rare, result.non_rare) == (0.5, 0.0, 1.0)
    assert ap(truth, pairs((0, PERSON, CUP, A_CUP, HOLD, 1.0))).rare is None


def test_the_same_truth_twice_can_be_found_twice():
    row = (0, PERSON, CUP, A_CUP, HOLD)
    assert ap(pairs(row, row), pairs((*row, 0.5), (*row, 0.4)), interpolation="all-point").full == 1.0
    assert ap(pairs(row, row), pairs((*row, 0.5)), interpolation="all-point").full == 0.5


def test_nothing_predicted():
    assert ap(pairs((0, PERSON, CUP, A_CUP, HOLD)), Pairs([], [], [], [], [], [])).full == 0.0
    assert ap(pairs(), Pairs([], [], [], [], [], [])).full is None


# V-COCO: roles instead of triplets

NOTHING = [0, 0, 0, 0]


def role(truth, predictions, persons=None, **options):
    result = vcoco_role_ap(truth, predictions, [HOLD, SIT], persons, **options)
    return result.scenario_1, result.scenario_2


def test_roles_ignore_the_class_of_the_object():
    truth = pairs((0, PERSON, CUP, A_CUP, HOLD))
    assert role(truth, pairs((0, PERSON, CUP, A_CHAIR, HOLD, 1.0))) == (1.0, 1.0)
    assert role(truth, pairs((0, PERSON, CUP, A_CUP, SIT, 1.0))) == (0.0, 0.0)


def test_a_missing_object_tells_the_scenarios_apart():
    truth = pairs((0, PERSON, NOTHING, 0, HOLD))
    assert role(truth, pairs((0, PERSON, CUP, A_CUP, HOLD, 1.0))) == (0.0, 1.0)
    for nothing in (NOTHING, [float("nan")] * 4):
        assert role(truth, pairs((0, PERSON, nothing, 0, HOLD, 1.0))) == (1.0, 1.0)


def test_no_object_where_there_is_one_is_wrong():
    truth = pairs((0, PERSON, CUP, A_CUP, HOLD))
    assert role(truth, pairs((0, PERSON, NOTHING, 0, HOLD, 1.0))) == (0.0, 0.0)


def test_a_prediction_belongs_to_the_person_it_overlaps_with_most():
    """The nearest person sits, so to hold is wrong, though another person who holds overlaps by more than half too."""
    near = [0, 0, 10, 24]
    truth = pairs((0, PERSON, CUP, A_CUP, HOLD), (0, near, CHAIR, A_CHAIR, SIT))
    assert role(truth, pairs((0, near, CUP, A_CUP, HOLD, 1.0))) == (0.0, 0.0)
    assert role(truth, pairs((0, PERSON, CUP, A_CUP, HOLD, 1.0))) == (0.5, 0.5)


def test_persons_who_do_nothing_and_persons_nobody_looked_at():
    truth = pairs((0, PERSON, CUP, A_CUP, HOLD))
    guess = pairs((0, PERSON, CUP, A_CUP, HOLD, 0.5), (0, FAR, CUP, A_CUP, HOLD, 0.9))
    assert role(truth, guess) == (0.5, 0.5)
    assert role(truth, guess, Persons([0], [FAR], [True])) == (0.5, 0.5)
    assert role(truth, guess, Persons([0], [FAR], [False])) == (1.0, 1.0)


def test_only_the_roles_that_are_measured():
    truth = pairs((0, PERSON, CUP, A_CUP, HOLD), (0, PERSON, CHAIR, A_CHAIR, SIT))
    result = vcoco_role_ap(truth, pairs((0, PERSON, CUP, A_CUP, HOLD, 1.0)), [HOLD])
    assert result.scenario_1 == 1.0
    assert result.num_truth.tolist() == [1]


ONE = pairs((0, PERSON, CUP, A_CUP, HOLD))
SURE = pairs((0, PERSON, CUP, A_CUP, HOLD, 1.0))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ap(ONE, ONE), "predictions need scores"),
        (lambda: vcoco_role_ap(ONE, ONE, [0]), "predictions need scores"),
        (lambda: hico_det_ap(ONE, SURE, []), "one or more"),
        (lambda: hico_det_ap(ONE, SURE, [(0, 0), (0, 0)]), "twice"),
        (lambda: hico_det_ap(ONE, SURE, TRIPLETS, [2]), "rare holds 2"),
        (lambda: ap(ONE, SURE, setting="known"), "setting must be"),
        (lambda: ap(ONE, SURE, interpolation="101-point"), "interpolation must be 11-point or all-point"),
        (lambda: vcoco_role_ap(ONE, SURE, [-1]), "roles must be whole numbers"),
        (lambda: Pairs([0], [PERSON], [CUP], [0], [0, 1]), "verbs has 2 rows"),
        (lambda: Pairs([0], [PERSON], [CUP], [-1], [0]), "objects must be 0 or more"),
        (lambda: Pairs([0.5], [PERSON], [CUP], [0], [0]), "images must be whole numbers"),
        (lambda: Pairs([0], [PERSON[:3]], [CUP], [0], [0]), "subjects must be boxes"),
        (lambda: Pairs([0], [[float("nan")] * 4], [CUP], [0], [0]), "needs the box of a person"),
        (lambda: Pairs([0], [PERSON], [CUP], [0], [0], [float("nan")]), "scores hold NaN"),
        (lambda: Pairs([0], [PERSON], [CUP], [0], [0], [[1.0]]), "scores must be (1,)"),
        (lambda: Persons([0], [PERSON], [True, False]), "annotated must be (1,)"),
    ],
)
def test_errors(call, words):
    with pytest.raises(DropKeyError) as error:
        call()
    assert words in str(error.value)
    assert "\n" not in str(error.value)
