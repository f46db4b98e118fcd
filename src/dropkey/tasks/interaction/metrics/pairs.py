"""Pairs of a person and an object in many images, as flat arrays: true ones, or predicted ones with scores."""

from typing import Any

import numpy as np

from dropkey.errors import ArgumentError
from dropkey.tasks.interaction.metrics.boxes import Array

__all__ = ["Pairs"]


class Pairs:
    """Pairs of a person and an object, one verb a row; a pair with two verbs is two rows.

    Args:
        images: (N,) whole numbers that say which image a pair is in; any, in any order.
        subjects: (N, 4) boxes of the persons as left, top, right, bottom, in any unit that truth and predictions share.
        object_boxes: (N, 4) likewise; a row of NaN or of zeros where there is no object (V-COCO).
        objects: (N,) classes of the objects, 0 or more.
        verbs: (N,) classes of what is done, 0 or more.
        scores: (N,) of predictions, higher for surer; None for the truth.

    Raises:
        ArgumentError: arrays of different lengths, boxes that are not (N, 4), a negative class, or NaN in a
            score or in the box of a person.
    """

    def __init__(
        self, images: Any, subjects: Any, object_boxes: Any, objects: Any, verbs: Any, scores: Any = None
    ) -> None:
        self.images = _whole("images", images)
        self.subjects = _boxes("subjects", subjects, len(self.images))
        if np.isnan(self.subjects).any():
            raise ArgumentError("subjects hold NaN: every pair needs the box of a person")
        self.object_boxes = _boxes("object_boxes", object_boxes, len(self.images))
        self.object_boxes[np.isnan(self.object_boxes).any(1)] = 0  # one way to say that there is none
        self.objects = _classes("objects", objects, len(self.images))
        self.verbs = _classes("verbs", verbs, len(self.images))
        self.scores = None if scores is None else _scores(scores, len(self.images))

    def __len__(self) -> int:
        return len(self.images)

    def require_scores(self) -> Array:
        """Return the scores, or raise an ArgumentError if these pairs have none."""
        if self.scores is None:
            raise ArgumentError("predictions need scores: Pairs(..., scores=...)")
        return self.scores

    def select(self, rows: Any) -> "Pairs":
        """Return the pairs in these rows: a mask or indices."""
        scores = None if self.scores is None else self.scores[rows]
        return Pairs(
            self.images[rows],
            self.subjects[rows],
            self.object_boxes[rows],
            self.objects[rows],
            self.verbs[rows],
            scores,
        )


def _whole(name: str, values: Any) -> Array:
    array = np.asarray(values)
    if array.size == 0:
        return np.zeros(0, np.int64)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ArgumentError(f"{name} must be whole numbers (N,), got {array.dtype} {array.shape}")
    return array.astype(np.int64)


def _classes(name: str, values: Any, count: int) -> Array:
    array = _whole(name, values)
    if len(array) != count:
        raise ArgumentError(f"{name} has {len(array)} rows where images has {count}")
    if count and array.min() < 0:
        raise ArgumentError(f"{name} must be 0 or more, got {array.min()}")
    return array


def _boxes(name: str, values: Any, count: int) -> Array:
    array = np.array(values, dtype=np.float64)
    if array.size == 0 and count == 0:
        return np.zeros((0, 4))
    if array.shape != (count, 4):
        raise ArgumentError(f"{name} must be boxes ({count}, 4), got {array.shape}")
    return array


def _scores(values: Any, count: int) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (count,):
        raise ArgumentError(f"scores must be ({count},), got {array.shape}")
    if np.isnan(array).any():
        raise ArgumentError(f"scores hold NaN, first in row {int(np.isnan(array).argmax())}")
    return array
