"""What a source of images gives: training and validation images with labels, and what is special about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

__all__ = ["ImageSource", "LabeledImages"]


class LabeledImages(Protocol):
    """Images in a fixed order, read one at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return the RGB image and the class index at ``index``."""


@dataclass(frozen=True)
class ImageSource:
    """Training and validation images of one task.

    Args:
        name: what ``--data`` calls it.
        train: training images.
        val: validation images.
        classes: class names, in the order of the labels.
        img_size: side of the images in pixels, or None if they differ.
        flips: whether an image and its mirror image show the same class.
        shifts: whether small images may be moved by an eighth of their side in training.
    """

    name: str
    train: LabeledImages
    val: LabeledImages
    classes: Sequence[str]
    img_size: int | None
    flips: bool
    shifts: bool = True
