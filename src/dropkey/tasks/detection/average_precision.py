"""Average precision as COCO counts it; the counting itself is faster-coco-eval's."""

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from dropkey.data.boxed_images import Boxes
from dropkey.tasks.detection.detections import Detections

__all__ = ["AREAS", "Precision", "average_precision"]

AREAS = ("all", "small", "medium", "large")  # small: below 32 x 32 pixels, large: above 96 x 96
_IOU_50, _IOU_75 = 0, 5  # places in the IoU thresholds 0.50, 0.55, ..., 0.95


@dataclass(frozen=True)
class Precision:
    """Precision over recall, for every IoU threshold, class and size, with at most 100 detections an image.

    Args:
        curves: (10 IoU thresholds, 101 recalls, classes, areas); -1 where there is nothing to find.
    """

    curves: Any

    def mean(self, iou: int | None = None, label: int | None = None, area: str = "all") -> float | None:
        """Return the mean over what is not chosen, or None where there is nothing to find."""
        chosen = self.curves[..., AREAS.index(area)]
        chosen = chosen if iou is None else chosen[iou : iou + 1]
        chosen = chosen if label is None else chosen[..., label : label + 1]
        found = chosen[chosen > -1]
        return float(found.mean()) if found.size else None

    def summary(self) -> dict[str, float | None]:
        """Return the means that are usually told: mAP, AP50, AP75, and mAP of small, medium and large objects."""
        sizes = {f"mAP_{area}": self.mean(area=area) for area in AREAS[1:]}
        return {"mAP": self.mean(), "AP50": self.mean(_IOU_50), "AP75": self.mean(_IOU_75), **sizes}

    def of_class(self, label: int) -> dict[str, float | None]:
        """Return mAP, AP50 and AP75 of one class."""
        ious = {"mAP": None, "AP50": _IOU_50, "AP75": _IOU_75}
        return {name: self.mean(iou, label) for name, iou in ious.items()}

    def over_recall(self, iou: int = _IOU_50) -> list[float]:
        """Return precision at the recalls 0.00, 0.01, ..., 1.00, the mean over classes that are there to be found."""
        curves = self.curves[iou, :, :, 0]
        present = curves[:, (curves > -1).all(0)]
        return [float(value) for value in present.mean(1)] if present.size else []


def average_precision(truth: Mapping[int, Boxes], found: Iterable[Detections], num_classes: int) -> Precision:
    """Compare detections with the truth.

    Args:
        truth: boxes by the index of their image: of all images that were looked at.
        found: detections in these images.
        num_classes: classes there are.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        there = _coco(truth, _annotations(truth), num_classes)
        seen = _coco(truth, _results(found), num_classes)
        evaluation = COCOeval_faster(there, seen, "bbox", print_function=_silent)
        evaluation.evaluate()
        evaluation.accumulate()
    return Precision(np.asarray(evaluation.eval["precision"])[..., -1])


def _coco(images: Iterable[int], annotations: Sequence[dict[str, Any]], num_classes: int) -> Any:
    categories = [{"id": label, "name": str(label)} for label in range(num_classes)]
    content = {"images": [{"id": index} for index in images], "annotations": annotations, "categories": categories}
    return COCO(content, print_function=_silent)


def _annotations(truth: Mapping[int, Boxes]) -> list[dict[str, Any]]:
    rows = [
        {**_box(index, label, xyxy), "area": float(area), "iscrowd": int(crowd)}
        for index, boxes in truth.items()
        for xyxy, label, crowd, area in zip(boxes.xyxy, boxes.labels, boxes.is_crowd, boxes.areas, strict=True)
    ]
    return _numbered(rows)


def _results(found: Iterable[Detections]) -> list[dict[str, Any]]:
    rows = []
    for image in found:
        for score, label, xyxy in zip(image.scores, image.labels, image.xyxy, strict=True):
            row = _box(image.index, label, xyxy)
            rows.append({**row, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0, "score": float(score)})
    return _numbered(rows)


def _box(index: int, label: int, xyxy: Any) -> dict[str, Any]:
    left, top, right, bottom = (float(value) for value in xyxy)
    return {"image_id": index, "category_id": int(label), "bbox": [left, top, right - left, bottom - top]}


def _numbered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Number annotations from 1: COCO's code takes the number 0 for "not matched"."""
    return [{**row, "id": number} for number, row in enumerate(rows, 1)]


def _silent(*words: object) -> None:
    pass
