"""What a detector finds in an image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dropkey.tasks.detection.families import DetectorFamily, corners

__all__ = ["Detections", "detections_of"]


@dataclass(frozen=True)
class Detections:
    """Detections of one image, best first, as NumPy arrays.

    Args:
        index: of the image in its split.
        scores: float64 (detections,), from 0 to 1.
        labels: int64 (detections,), class indices.
        xyxy: float64 (detections, 4), corners in pixels of the image as its source gives it.
    """

    index: int
    scores: Any
    labels: Any
    xyxy: Any


@torch.no_grad()
def detections_of(
    family: DetectorFamily, logits: Tensor, boxes_cxcywh: Tensor, indices: Tensor, sizes: Sequence[tuple[int, int]]
) -> list[Detections]:
    """Read the output of a detector for a batch.

    Args:
        family: of the detector.
        logits: (B, Q, ...), of the last layer.
        boxes_cxcywh: (B, Q, 4), in shares of the image.
        indices: (B,), of the images in their split.
        sizes: (rows, cols) of every image of the split.
    """
    scores, labels, boxes = family.detections(logits, boxes_cxcywh)
    places = indices.tolist()
    scale = torch.tensor([[sizes[i][1], sizes[i][0]] * 2 for i in places], dtype=torch.float64)
    xyxy = corners(boxes.double().cpu()) * scale[:, None]
    rows = zip(places, scores.double().cpu().numpy(), labels.cpu().numpy(), xyxy.numpy(), strict=True)
    return [Detections(*row) for row in rows]
