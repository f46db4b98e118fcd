"""HICO-DET's measure: mean average precision over kinds of interaction."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dropkey.errors import ArgumentError
from dropkey.tasks.interaction.metrics.average_precision import Interpolation, average_precisions, check_interpolation
from dropkey.tasks.interaction.metrics.boxes import Array, paired_iou
from dropkey.tasks.interaction.metrics.matching import best_candidate, first_of_each, joined
from dropkey.tasks.interaction.metrics.pairs import Pairs

__all__ = ["HicoDetAP", "hico_det_ap"]

_MIN_OVERLAP = 0.5


@dataclass(frozen=True)
class HicoDetAP:
    """Mean average precision in [0, 1]; None where no interaction of the kind has any truth.

    Attributes:
        full: over all interactions.
        rare: over those that are rare in training.
        non_rare: over the others.
        by_triplet: (T,) of each interaction, NaN without truth.
        num_truth: (T,) true pairs of each.
    """

    full: float | None
    rare: float | None
    non_rare: float | None
    by_triplet: Array
    num_truth: Array


def hico_det_ap(
    truth: Pairs,
    predictions: Pairs,
    triplets: Sequence[tuple[int, int]],
    rare: Collection[int] = (),
    *,
    setting: Literal["default", "known_object"] = "default",
    interpolation: Interpolation = "11-point",
    inclusive_boxes: bool = False,
) -> HicoDetAP:
    """Measure predictions as HICO-DET does.

    A prediction is right if both of its boxes overlap by 0.5 with the true pair of its image and triplet that they
    overlap with most (by the smaller of the two overlaps), unless a surer one has found that pair. The published code
    of HICO-DET, PPDM and QPIC does the same, with these differences: QPIC's and PPDM's leave out false predictions on
    images without any pair, which count here; equal scores are one step here and in the order of a sort there; recall
    is compared in whole numbers here. Nothing is cut off at 100 predictions an image: that is the model's part.

    Args:
        truth: all true pairs; a pair listed twice can be found twice. Those of other triplets count nowhere.
        predictions: with scores; those of other triplets count nowhere.
        triplets: (verb, object class) of each interaction: 600 in HICO-DET, 520 without the verb "no interaction".
        rare: indices of the triplets that are rare in training: fewer than 10 pairs.
        setting: "default" takes all images for every triplet, "known_object" only those with a true pair that has the
            object of the triplet.
        interpolation: "11-point", as in the published code, or "all-point".
        inclusive_boxes: boxes name their last pixel, so that sides are one longer, as in the published code.

    Raises:
        ArgumentError: predictions without scores, no triplet or one listed twice, or an unknown setting.

    Source: Chao et al., "Learning to Detect Human-Object Interactions", WACV 2018, section 5.
    """
    check_interpolation(interpolation)
    if setting not in ("default", "known_object"):
        raise ArgumentError(f"setting must be default or known_object, got {setting!r}")
    table = _Table(triplets, rare)
    predictions.require_scores()
    truth_class, predicted_class = table.classes(truth), table.classes(predictions)
    if setting == "known_object":
        predicted_class = np.where(_shows_object(truth, predictions), predicted_class, -1)
    truth, truth_class = truth.select(truth_class >= 0), truth_class[truth_class >= 0]
    predictions, predicted_class = predictions.select(predicted_class >= 0), predicted_class[predicted_class >= 0]
    num_truth = np.bincount(truth_class, minlength=len(table))
    right = _right(truth, truth_class, predictions, predicted_class, inclusive_boxes)
    scores = predictions.require_scores()
    ap = average_precisions(predicted_class, scores, right, num_truth, interpolation)
    return HicoDetAP(_mean(ap), _mean(ap[table.is_rare]), _mean(ap[~table.is_rare]), ap, num_truth)


class _Table:
    """Triplets by verb and object, and which of them are rare."""

    def __init__(self, triplets: Sequence[tuple[int, int]], rare: Collection[int]) -> None:
        pairs = np.asarray(triplets)
        if pairs.ndim != 2 or pairs.shape[1] != 2 or len(pairs) == 0:
            raise ArgumentError("triplets must be a list of (verb, object class), one or more")
        if len(np.unique(pairs, axis=0)) < len(pairs):
            raise ArgumentError("triplets holds a (verb, object class) twice")
        self.is_rare = np.zeros(len(pairs), dtype=bool)
        odd = [index for index in rare if not 0 <= index < len(pairs)]
        if odd:
            raise ArgumentError(f"rare holds {odd[0]}, and there are {len(pairs)} triplets: 0 to {len(pairs) - 1}")
        self.is_rare[list(rare)] = True
        self._index = np.full(pairs.max(0) + 1, -1)
        self._index[pairs[:, 0], pairs[:, 1]] = np.arange(len(pairs))

    def __len__(self) -> int:
        return len(self.is_rare)

    def classes(self, pairs: Pairs) -> Array:
        """Return the index of each pair's triplet, -1 for another one."""
        verbs, objects = self._index.shape
        known = (pairs.verbs < verbs) & (pairs.objects < objects)
        result: Array = np.where(known, self._index[pairs.verbs * known, pairs.objects * known], -1)
        return result


def _shows_object(truth: Pairs, predictions: Pairs) -> Array:
    """Say which predictions are on images with a true pair that has the object they name."""
    both = np.concatenate([_columns(truth), _columns(predictions)])
    _, keys = np.unique(both, axis=0, return_inverse=True)
    keys = keys.reshape(-1)
    shown: Array = np.isin(keys[len(truth) :], keys[: len(truth)])
    return shown


def _columns(pairs: Pairs) -> Array:
    return np.stack([pairs.images, pairs.objects], 1)


def _right(truth: Pairs, truth_class: Array, predictions: Pairs, predicted_class: Array, inclusive: bool) -> Array:
    images, inverse = np.unique(np.concatenate([truth.images, predictions.images]), return_inverse=True)
    classes = np.concatenate([truth_class, predicted_class])
    keys = classes * len(images) + inverse.reshape(-1)
    # Also by their boxes: so the order of the truth changes nothing, and equal pairs stand together.
    rows = np.column_stack([keys[: len(truth)], truth.subjects, truth.object_boxes])
    pairs, counts = np.unique(rows, axis=0, return_counts=True)
    row, candidate = joined(keys[len(truth) :], pairs[:, 0])
    overlaps = np.minimum(
        paired_iou(predictions.subjects[row], pairs[candidate, 1:5], inclusive=inclusive),
        paired_iou(predictions.object_boxes[row], pairs[candidate, 5:], inclusive=inclusive),
    )
    best, overlap = best_candidate(row, candidate, overlaps, len(predictions))
    return first_of_each(np.where(overlap >= _MIN_OVERLAP, best, -1), predictions.require_scores(), counts)


def _mean(values: Array) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
