"""Overlap of boxes that belong together row by row."""

from typing import Any

import numpy as np

__all__ = ["Array", "is_missing", "paired_iou"]

Array = np.ndarray[Any, Any]


def paired_iou(boxes: Array, others: Array, *, inclusive: bool = False) -> Array:
    """Return the intersection over union of each box with the other box in its row; 0 where either is missing.

    Args:
        boxes: (N, 4) as left, top, right, bottom.
        others: (N, 4) likewise.
        inclusive: right and bottom name the last pixel inside, so that sides are one longer.

    Returns:
        (N,) in [0, 1].
    """
    extra = 1.0 if inclusive else 0.0
    low, high = np.maximum(boxes[:, :2], others[:, :2]), np.minimum(boxes[:, 2:], others[:, 2:])
    intersection = np.clip(high - low + extra, 0, None).prod(1)
    union = _area(boxes, extra) + _area(others, extra) - intersection
    iou = np.zeros(len(boxes))
    there = (union > 0) & ~is_missing(boxes) & ~is_missing(others)
    np.divide(intersection, union, out=iou, where=there)
    return iou


def is_missing(boxes: Array) -> Array:
    """Say which boxes are none: rows of zeros."""
    missing: Array = (boxes == 0).all(1)
    return missing


def _area(boxes: Array, extra: float) -> Array:
    area: Array = np.clip(boxes[:, 2:] - boxes[:, :2] + extra, 0, None).prod(1)
    return area
