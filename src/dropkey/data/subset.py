"""Fewer images of a source: so many of each class to train on, or a share of them held out to validate on."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from dropkey.data.source import ImageSource, LabeledImages
from dropkey.errors import DataError

__all__ = ["Subset", "few_per_class", "hold_out"]

_SEED = 0  # never the seed of a run: all runs are compared on the same images


class Subset:
    """Some images of others, in the order of their places there.

    Args:
        images: what they are taken from.
        places: their places there, rising.
    """

    def __init__(self, images: LabeledImages, places: Sequence[int]) -> None:
        self.images = images
        self.places = list(places)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.images[self.places[index]]

    def label(self, index: int) -> int:
        """Return the class index at ``index`` without reading the image."""
        return self.images.label(self.places[index])

    def size(self, index: int) -> tuple[int, int] | None:
        """Return (width, height) in pixels, or None if unknown."""
        return self.images.size(self.places[index])

    def fingerprint(self) -> str:
        """Return what tells these images from others: those they are taken from, and which."""
        parts = repr((self.images.fingerprint(), self.places))
        return hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()


def few_per_class(source: ImageSource, count: int) -> ImageSource:
    """Return a source that trains on ``count`` images of each class; more contain those of fewer.

    Raises:
        DataError: a class has not as many; the message names it.
    """
    chosen: list[int] = []
    for name, places in zip(source.classes, _shuffled_by_class(source), strict=True):
        if len(places) < count:
            raise DataError(
                f"--train-per-class {count} is more than the {len(places)} training images of the class {name!r}"
            )
        chosen += places[:count]
    return dataclasses.replace(source, train=Subset(source.train, sorted(chosen)))


def hold_out(source: ImageSource, share: float) -> ImageSource:
    """Return a source that validates on a share of each class's training images, and trains on the rest.

    The validation images of the source itself are left alone: what is chosen on the share can be tested on them.

    Args:
        source: the images.
        share: in (0, 1), rounded to whole images of each class, to one at least on either side.

    Raises:
        DataError: a class has a single training image.
    """
    train: list[int] = []
    val: list[int] = []
    for name, places in zip(source.classes, _shuffled_by_class(source), strict=True):
        if len(places) < 2:
            raise DataError(f"--val-share needs two training images of each class, and {name!r} has {len(places)}")
        count = min(max(1, round(share * len(places))), len(places) - 1)
        val += places[:count]
        train += places[count:]
    return dataclasses.replace(source, train=Subset(source.train, sorted(train)), val=Subset(source.train, sorted(val)))


def _shuffled_by_class(source: ImageSource) -> list[list[int]]:
    labels = np.array([source.train.label(index) for index in range(len(source.train))])
    order = np.random.default_rng(_SEED).permutation(len(labels))
    return [[int(place) for place in order if labels[place] == label] for label in range(len(source.classes))]
