"""What a source of images with boxes gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

__all__ = ["BoxedImages", "Boxes", "DetectionSource"]


@dataclass(frozen=True)
class Boxes:
    """The boxes of one image.

    Args:
        xyxy: float64 (boxes, 4), corners in pixels of the image: left, top, right, bottom.
        labels: int64 (boxes,), class indices.
        is_crowd: bool (boxes,), whether a box stands for a group: nothing to learn from, and no false alarm inside.
        areas: float64 (boxes,), in square pixels: of the object where the source knows it, otherwise of the box.
    """

    xyxy: Any
    labels: Any
    is_crowd: Any
    areas: Any

    @classmethod
    def of(cls, xyxy: Any, labels: Any, is_crowd: Any = None, areas: Any = None) -> "Boxes":
        """Return boxes from what NumPy takes for arrays; no box is a crowd, and areas are of the boxes, by default."""
        xyxy = np.asarray(xyxy, dtype=np.float64).reshape(-1, 4)
        sides = xyxy[:, 2:] - xyxy[:, :2]
        return cls(
            xyxy,
            np.asarray(labels, dtype=np.int64).reshape(-1),
            np.zeros(len(xyxy), dtype=bool) if is_crowd is None else np.asarray(is_crowd, dtype=bool).reshape(-1),
            sides.prod(1) if areas is None else np.asarray(areas, dtype=np.float64).reshape(-1),
        )

    def __len__(self) -> int:
        return len(self.labels)


class BoxedImages(Protocol):
    """Images with boxes in a fixed order, read one at a time."""

    @property
    def image_ids(self) -> Sequence[int | str]:
        """What the source calls its images, for files of predictions."""

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """(rows, cols) of each image."""

    def image(self, index: int) -> Image.Image:
        """Return an image as RGB."""

    def boxes(self, index: int) -> Boxes:
        """Return the boxes of an image."""


@dataclass(frozen=True)
class DetectionSource:
    """Training and validation images with boxes.

    Args:
        name: what ``--data`` calls it.
        train: training images.
        val: validation images.
        classes: class names, in the order of the labels.
        category_ids: what the source calls its classes, in the same order, for files of predictions.
        flips: whether an image and its mirror image show the same classes.
        notes: what the user should know of the boxes, one line each.
    """

    name: str
    train: BoxedImages
    val: BoxedImages
    classes: Sequence[str]
    category_ids: Sequence[int | str]
    flips: bool
    notes: Sequence[str] = ()
