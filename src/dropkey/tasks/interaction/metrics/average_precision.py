"""Average precision of many classes, by eleven points or by all."""

from typing import Literal, get_args

import numpy as np

from dropkey.errors import ArgumentError
from dropkey.tasks.interaction.metrics.boxes import Array

__all__ = ["Interpolation", "average_precisions", "check_interpolation"]

Interpolation = Literal["11-point", "all-point"]
_TENTHS = np.arange(11)


def check_interpolation(interpolation: str) -> None:
    """Raise an ArgumentError for a way to interpolate that is not known."""
    if interpolation not in get_args(Interpolation):
        raise ArgumentError(f"interpolation must be {' or '.join(get_args(Interpolation))}, got {interpolation!r}")


def average_precisions(
    classes: Array, scores: Array, right: Array, num_truth: Array, interpolation: Interpolation
) -> Array:
    """Return the average precision of each class, NaN for a class without truth.

    Predictions of equal score are one step of the curve: their order, which is chance, changes nothing.

    Args:
        classes: (N,) of the predictions, from 0 to C - 1.
        scores: (N,).
        right: (N,) whether a prediction is right.
        num_truth: (C,) true pairs of each class.
        interpolation: "11-point" is the mean of the best precision at recalls of at least 0, 0.1, ... 1; "all-point"
            is the area below the best precision at that recall or more.
    """
    order = np.lexsort((-scores, classes))
    bounds = np.searchsorted(classes[order], np.arange(len(num_truth) + 1))
    result = np.full(len(num_truth), np.nan)
    for index in np.flatnonzero(num_truth):
        rows = order[bounds[index] : bounds[index + 1]]
        result[index] = _average_precision(scores[rows], right[rows], int(num_truth[index]), interpolation)
    return result


def _average_precision(scores: Array, right: Array, num_truth: int, interpolation: Interpolation) -> float:
    if len(scores) == 0:
        return 0.0
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))  # the last one of each score
    found = right.cumsum()[ends]
    best = np.maximum.accumulate((found / (ends + 1))[::-1])[::-1]  # precision at this recall or more
    if interpolation == "all-point":
        return float((np.diff(found, prepend=0) * best).sum() / num_truth)
    # In whole numbers: as a float, 3 * 0.1 is more than a recall of 3 / 10.
    first = np.searchsorted(10 * found, _TENTHS * num_truth)
    return float(np.append(best, 0.0)[first].sum() / len(_TENTHS))
