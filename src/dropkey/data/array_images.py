"""Images that are in memory as one array."""

import hashlib
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["ArrayImages"]


class ArrayImages:
    """Images in one array, given as RGB.

    Args:
        pixels: uint8 (images, rows, cols) or (images, rows, cols, 3).
        labels: class indices (images,).
    """

    def __init__(self, pixels: Any, labels: Any) -> None:
        self.pixels = np.asarray(pixels)
        self.labels = np.asarray(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        image = Image.fromarray(self.pixels[index])
        return (image if image.mode == "RGB" else image.convert("RGB")), int(self.labels[index])

    def label(self, index: int) -> int:
        """Return the class index at ``index``."""
        return int(self.labels[index])

    def size(self, index: int) -> tuple[int, int]:
        """Return (width, height) in pixels: all are alike."""
        rows, cols = self.pixels.shape[1:3]
        return cols, rows

    def fingerprint(self) -> str:
        """Return what tells these images and labels from others: all of their bytes."""
        digest = hashlib.blake2b(digest_size=16)
        for array in (self.pixels, self.labels.astype(np.int64)):
            digest.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()
