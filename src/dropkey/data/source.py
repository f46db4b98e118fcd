"""What a source of images gives: training and validation images with labels, and what is special about them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from PIL import Image

from dropkey.data.left_out import LeftOut

__all__ = ["ImageSource", "LabeledImages"]


class LabeledImages(Protocol):
    """Images in a fixed order, read one at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return the RGB image and the class index at ``index``."""

    def label(self, index: int) -> int:
        """Return the class index at ``index`` without reading the image."""

    def size(self, index: int) -> tuple[int, int] | None:
        """Return (width, height) in pixels of the image at ``index`` without reading all of it; None if unknown."""

    def fingerprint(self) -> str:
        """Return what tells these images and labels from others."""


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
        left_out: files and folders that lie among the images and are no part of them.
    """

    name: str
    train: LabeledImages
    val: LabeledImages
    classes: Sequence[str]
    img_size: int | None
    flips: bool
    shifts: bool = True
    left_out: LeftOut = field(default_factory=LeftOut)

    def fingerprint(self) -> str:
        """Return what tells these images, labels and classes from others, wherever they lie."""
        parts = (self.train.fingerprint(), self.val.fingerprint(), *self.classes)
        return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
