"""V-COCO's measure: role average precision, in two scenarios."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dropkey.errors import ArgumentError
from dropkey.tasks.interaction.metrics.average_precision import Interpolation, average_precisions, check_interpolation
from dropkey.tasks.interaction.metrics.boxes import Array, is_missing, paired_iou
from dropkey.tasks.interaction.metrics.matching import best_candidate, first_of_each, joined
from dropkey.tasks.interaction.metrics.pairs import Pairs

__all__ = ["Persons", "RoleAP", "vcoco_role_ap"]

_MIN_OVERLAP = 0.5


class Persons:
    """Further true persons, beside those of the true pairs.

    Args:
        images: (N,) which image a person is in.
        boxes: (N, 4) as left, top, right, bottom.
        annotated: (N,) True for a person who does nothing of what is measured, False for one whose actions nobody
            wrote down: predictions on them count neither way.
    """

    def __init__(self, images: Any, boxes: Any, annotated: Any) -> None:
        count = len(np.asarray(images))
        checked = Pairs(images, boxes, np.zeros((count, 4)), np.zeros(count, int), np.zeros(count, int))
        self.images, self.boxes = checked.images, checked.subjects
        self.annotated = np.asarray(annotated, dtype=bool)
        if self.annotated.shape != (count,):
            raise ArgumentError(f"annotated must be ({count},), got {self.annotated.shape}")


@dataclass(frozen=True)
class RoleAP:
    """Mean average precision over roles in [0, 1]; None without any truth.

    Attributes:
        scenario_1: where a person acts without a visible object, only a prediction without an object is right.
        scenario_2: there any object is right.
        by_role_1: (roles,) of scenario 1, NaN for a role without truth or left out.
        by_role_2: (roles,) of scenario 2.
        num_truth: (roles,) true pairs of each.
    """

    scenario_1: float | None
    scenario_2: float | None
    by_role_1: Array
    by_role_2: Array
    num_truth: Array


def vcoco_role_ap(
    truth: Pairs,
    predictions: Pairs,
    roles: Any,
    persons: Persons | None = None,
    *,
    interpolation: Interpolation = "all-point",
    inclusive_boxes: bool = False,
) -> RoleAP:
    """Measure predictions as V-COCO does.

    A prediction belongs to the true person that its person overlaps with most, whatever that one does. It is right if
    that overlap is 0.5 or more, that person has the predicted role, the object overlaps by 0.5 (without a true object:
    see ``RoleAP``), and no surer one was right there. Classes of objects count nowhere: V-COCO measures boxes and
    roles. As in the published code; but equal scores are one step here, and a prediction is left out for a person that
    is not annotated only if it overlaps with one.

    Args:
        truth: all true pairs, with a role as the verb; rows of NaN or zeros as ``object_boxes`` without an object.
        predictions: with scores.
        roles: the roles that are measured: 24 in V-COCO.
        persons: further true persons.
        interpolation: "all-point", as in the published code, or "11-point".
        inclusive_boxes: boxes name their last pixel, as in the published code.

    Raises:
        ArgumentError: predictions without scores, or roles that are no whole numbers from 0.

    Source: Gupta and Malik, "Visual Semantic Role Labeling", 2015.
    """
    check_interpolation(interpolation)
    wanted = np.asarray(roles)
    if wanted.ndim != 1 or not len(wanted) or not np.issubdtype(wanted.dtype, np.integer) or wanted.min() < 0:
        raise ArgumentError("roles must be whole numbers from 0, one or more")
    predictions.require_scores()
    matched = _Matched(truth, predictions, _persons_of(truth, persons), inclusive_boxes)
    count = int(max(wanted.max(), truth.verbs.max(initial=0), predictions.verbs.max(initial=0))) + 1
    num_truth = np.where(np.isin(np.arange(count), wanted), np.bincount(truth.verbs, minlength=count), 0)
    kept = predictions.select(matched.counts)
    by_role = [
        average_precisions(kept.verbs, kept.require_scores(), right[matched.counts], num_truth, interpolation)[wanted]
        for right in (matched.right(1), matched.right(2))
    ]
    return RoleAP(_mean(by_role[0]), _mean(by_role[1]), by_role[0], by_role[1], num_truth[wanted])


class _Matched:
    """Predictions with the person each belongs to.

    Attributes:
        counts: (N,) False for predictions on persons that are not annotated.
    """

    def __init__(self, truth: Pairs, predictions: Pairs, persons: Persons, inclusive: bool) -> None:
        self.predictions, self.inclusive = predictions, inclusive
        row, candidate = joined(predictions.images, persons.images)
        overlaps = paired_iou(predictions.subjects[row], persons.boxes[candidate], inclusive=inclusive)
        person, overlap = best_candidate(row, candidate, overlaps, len(predictions))
        self.counts = (overlap == 0) | np.append(persons.annotated, True)[person]
        num_roles = int(max(truth.verbs.max(initial=0), predictions.verbs.max(initial=0))) + 1
        self.keys = np.where(overlap >= _MIN_OVERLAP, person * num_roles + predictions.verbs, -1)
        # By their boxes too: so the order of the truth changes nothing, and equal pairs stand together.
        rows = np.column_stack([_rows_in(persons, truth) * num_roles + truth.verbs, truth.object_boxes])
        self.pairs, self.num_equal = np.unique(rows, axis=0, return_counts=True)

    def right(self, scenario: int) -> Array:
        """Say which predictions are right."""
        row, candidate = joined(self.keys, self.pairs[:, 0])
        predicted, true = self.predictions.object_boxes[row], self.pairs[candidate, 1:]
        accepted = is_missing(predicted) if scenario == 1 else np.ones(len(row), dtype=bool)
        overlaps = np.where(is_missing(true), accepted, paired_iou(predicted, true, inclusive=self.inclusive))
        best, overlap = best_candidate(row, candidate, overlaps, len(self.predictions))
        found = np.where(overlap >= _MIN_OVERLAP, best, -1)
        return first_of_each(found, self.predictions.require_scores(), self.num_equal)


def _persons_of(truth: Pairs, others: Persons | None) -> Persons:
    """Return all persons once, in the order of images: of the pairs, then the others; one who acts is annotated."""
    images, boxes, annotated = truth.images, truth.subjects, np.ones(len(truth), dtype=bool)
    if others is not None:
        images, boxes = np.concatenate([images, others.images]), np.concatenate([boxes, others.boxes])
        annotated = np.concatenate([annotated, others.annotated])
    rows, inverse = np.unique(np.column_stack([images, boxes]), axis=0, return_inverse=True)
    known = np.zeros(len(rows), dtype=bool)
    np.logical_or.at(known, inverse.reshape(-1), annotated)
    return Persons(rows[:, 0].astype(np.int64), rows[:, 1:], known)


def _rows_in(persons: Persons, truth: Pairs) -> Array:
    """Return the index of each pair's person."""
    rows = np.column_stack([persons.images, persons.boxes])
    _, inverse = np.unique(
        np.concatenate([rows, np.column_stack([truth.images, truth.subjects])]), axis=0, return_inverse=True
    )
    return inverse.reshape(-1)[len(rows) :]  # persons are sorted and differ: the index is the person's own


def _mean(values: Array) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
