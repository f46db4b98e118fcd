"""Digit scenes: scikit-learn's digits at random sizes and places on textured canvases, drawn and never downloaded."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from dropkey.data.boxed_images import Boxes, DetectionSource
from dropkey.data.scene_painting import blank_canvas, digit_glyphs, enlarged, paint
from dropkey.data.seeds import seed_of

__all__ = ["DigitScenes", "digit_scenes"]

_SIDE = 128
_SCENES = {"train": 1600, "val": 200}
_MOST_DIGITS = 8
_SCALES = (3.0, 5.0)  # on digits of 8 x 8 pixels
_OVERLAP = 0.1  # largest share of the smaller one of two boxes that both may cover
_TRIES = 20


class DigitScenes:
    """Scenes that are a function of split and index, so that every run sees the same ones; some are empty.

    Args:
        split: "train" or "val"; they share no digit.
        count: number of scenes.
    """

    def __init__(self, split: str, count: int) -> None:
        self.split = split
        self.image_ids: Sequence[int | str] = range(count)
        self.sizes: Sequence[tuple[int, int]] = [(_SIDE, _SIDE)] * count
        self._boxes: dict[int, Boxes] = {}

    def image(self, index: int) -> Image.Image:
        canvas, self._boxes[index] = self._draw(index)
        return Image.fromarray((canvas * 255).round().astype(np.uint8))

    def boxes(self, index: int) -> Boxes:
        if index not in self._boxes:
            self._boxes[index] = self._draw(index)[1]
        return self._boxes[index]

    def _draw(self, index: int) -> tuple[Any, Boxes]:
        rng = np.random.default_rng(seed_of("digit_scenes", self.split, index))
        glyphs, digits = digit_glyphs(self.split)
        canvas = blank_canvas(rng, (_SIDE, _SIDE))
        boxes: list[tuple[int, int, int, int]] = []
        labels = []
        for _ in range(int(rng.integers(0, _MOST_DIGITS + 1))):
            which = int(rng.integers(len(glyphs)))
            ink = enlarged(glyphs[which], rng.uniform(*_SCALES))
            box = _free_place(rng, ink.shape, boxes)
            if box is not None:
                paint(rng, canvas, ink, box[1], box[0])
                boxes.append(box)
                labels.append(digits[which])
        return canvas, Boxes.of(boxes, labels)


def digit_scenes() -> DetectionSource:
    """Return 1,600 training and 200 validation scenes of 128 x 128 pixels with up to 8 digits each."""
    train, val = (DigitScenes(split, count) for split, count in _SCENES.items())
    classes = [str(digit) for digit in range(10)]
    return DetectionSource("digit_scenes", train, val, classes, range(10), flips=False)


def _free_place(
    rng: np.random.Generator, shape: tuple[int, int], taken: Sequence[tuple[int, int, int, int]]
) -> tuple[int, int, int, int] | None:
    """Return a box (left, top, right, bottom) for a glyph that hardly covers others, or None if none is found."""
    rows, cols = shape
    for _ in range(_TRIES):
        left, top = int(rng.integers(_SIDE - cols + 1)), int(rng.integers(_SIDE - rows + 1))
        box = (left, top, left + cols, top + rows)
        if all(_shared(box, other) <= _OVERLAP for other in taken):
            return box
    return None


def _shared(one: Sequence[int], other: Sequence[int]) -> float:
    """Return the area that two boxes share, as a share of the smaller one."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return max(0, width) * max(0, height) / smaller
