"""Images that are in memory as one array."""

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
