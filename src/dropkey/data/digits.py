"""scikit-learn's handwritten digits: 1,797 gray images of 8 x 8 pixels that come with the library."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from dropkey.data.array_images import ArrayImages
from dropkey.data.source import ImageSource

__all__ = ["digits"]

_SPLIT_SEED = 0  # never the seed of a run: all runs are compared on the same images


def digits() -> ImageSource:
    """Return the digits: 1,437 training and 360 validation images, always the same, every class in the same share."""
    bunch = load_digits()
    pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    train, val = train_test_split(
        np.arange(len(pixels)), test_size=0.2, stratify=bunch.target, random_state=_SPLIT_SEED
    )
    return ImageSource(
        name="digits",
        train=ArrayImages(pixels[train], bunch.target[train]),
        val=ArrayImages(pixels[val], bunch.target[val]),
        classes=[str(name) for name in bunch.target_names],
        img_size=8,
        flips=False,
        shifts=False,  # one pixel is half a patch here: it costs more accuracy than it brings
    )
