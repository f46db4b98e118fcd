"""Which detections are right, image by image: for choosing the images that are shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dropkey.data.boxed_images import Boxes
from dropkey.tasks.detection.detections import Detections

__all__ = ["Matched", "best_threshold", "match"]

_IOU = 0.5


@dataclass(frozen=True)
class Matched:
    """An image with its truth, its detections, and which of them are right.

    Args:
        found: the detections, best first.
        truth: the boxes there are.
        right: bool (detections,), whether each overlaps by half with a true box of its class that none before it took.
    """

    found: Detections
    truth: Boxes
    right: Any

    def errors(self, threshold: float) -> int:
        """Return the number of objects missed and of false alarms, counting detections of this score or more."""
        shown = self.found.scores >= threshold
        hits = int((shown & self.right).sum())
        return int((~self.truth.is_crowd).sum()) - hits + int(shown.sum()) - hits


def match(found: Sequence[Detections], truth: Mapping[int, Boxes]) -> list[Matched]:
    """Match the detections of every image with its true boxes; crowds are no objects here."""
    return [Matched(image, truth[image.index], _right(image, truth[image.index])) for image in found]


def best_threshold(matched: Sequence[Matched]) -> float:
    """Return the score above which precision and recall are best together: where F1 is largest."""
    scores = np.concatenate([image.found.scores for image in matched] or [np.zeros(0)])
    right = np.concatenate([image.right for image in matched] or [np.zeros(0, dtype=bool)])
    objects = sum(int((~image.truth.is_crowd).sum()) for image in matched)
    if not len(scores) or not objects:
        return 0.5
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + objects)
    return float(scores[order][int(f1.argmax())])


def _right(found: Detections, truth: Boxes) -> Any:
    overlaps = _ious(found.xyxy, truth.xyxy)
    overlaps[found.labels[:, None] != truth.labels[None]] = 0
    overlaps[:, truth.is_crowd] = 0
    right = np.zeros(len(found.scores), dtype=bool)
    for row in range(len(right)):
        if len(truth) and overlaps[row].max() >= _IOU:
            right[row] = True
            overlaps[:, int(overlaps[row].argmax())] = 0
    return right


def _ious(one: Any, other: Any) -> Any:
    """Return the overlap of every box of one set with every box of the other: (boxes, boxes)."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = (high - low).clip(0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (one, other)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)
