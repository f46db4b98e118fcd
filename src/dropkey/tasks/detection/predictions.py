"""Detections in COCO's results format: a JSON list with ``image_id``, ``category_id``, ``bbox`` and ``score``."""

import json
from collections.abc import Sequence
from pathlib import Path

from dropkey.data.boxed_images import DetectionSource
from dropkey.runs.run_folder import write_atomically
from dropkey.tasks.detection.detections import Detections

__all__ = ["write_predictions"]


def write_predictions(found: Sequence[Detections], source: DetectionSource, path: Path) -> None:
    """Write detections in the validation images; boxes are left, top, width, height in pixels of the image."""
    results = []
    for image in found:
        image_id = source.val.image_ids[image.index]
        for score, label, (left, top, right, bottom) in zip(image.scores, image.labels, image.xyxy, strict=True):
            box = [float(value) for value in (left, top, right - left, bottom - top)]
            category = source.category_ids[int(label)]
            results.append({"image_id": image_id, "category_id": category, "bbox": box, "score": float(score)})
    write_atomically(path, json.dumps(results).encode())
