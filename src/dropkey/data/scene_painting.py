"""Pictures for sources that need no download: handwritten digits on textured canvases."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

__all__ = ["Glyph", "blank_canvas", "digit_glyphs", "enlarged", "glyphs_by_digit", "paint"]

_GRAY = (0.3, 0.7)  # of a canvas
_INK = 0.2  # of full ink: what is fainter does not count for a box
_TEXTURE = ((4, 0.10), (16, 0.05), (64, 0.03))  # cells a side, and how much they differ
_PIXEL_NOISE = 0.02
_CONTRAST = 0.35  # least distance of an ink's color from the canvas, in one channel
_TRAIN_SHARE = 1300  # of scikit-learn's 1,797 digits, the others are for validation

Glyph = Any  # float32 (rows, cols), ink from 0 to 1, cut to the box around it
_Random = np.random.Generator


@cache
def digit_glyphs(split: str) -> tuple[Sequence[Glyph], Sequence[int]]:
    """Return the 8 x 8 images of digits of a split, "train" or "val", and what digits they are; none is in both."""
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    chosen = order[:_TRAIN_SHARE] if split == "train" else order[_TRAIN_SHARE:]
    images = (bunch.images[chosen] / 16).astype(np.float32)
    return list(images), [int(digit) for digit in bunch.target[chosen]]


@cache
def glyphs_by_digit(split: str) -> Sequence[Sequence[Glyph]]:
    """Return the images of a split, "train" or "val", of each digit from 0 to 9."""
    glyphs, digits = digit_glyphs(split)
    return [[glyph for glyph, digit in zip(glyphs, digits, strict=True) if digit == number] for number in range(10)]


def blank_canvas(rng: _Random, size: tuple[int, int]) -> Any:
    """Return a gray canvas with soft texture: float32 (rows, cols, 3), from 0 to 1."""
    rows, cols = size
    canvas = np.full((rows, cols, 3), rng.uniform(*_GRAY), np.float32)
    for cells, strength in _TEXTURE:
        noise = rng.uniform(-strength, strength, (cells, cells)).astype(np.float32)
        canvas += np.asarray(Image.fromarray(noise).resize((cols, rows), Image.Resampling.BILINEAR))[..., None]
    canvas += rng.normal(0, _PIXEL_NOISE, canvas.shape).astype(np.float32)
    return canvas.clip(0, 1)


def enlarged(glyph: Glyph, scale: float) -> Glyph:
    """Return a glyph at another size, cut to the box around its ink."""
    side = round(glyph.shape[0] * scale)
    ink = np.asarray(Image.fromarray(glyph).resize((side, side), Image.Resampling.BILINEAR)).clip(0, 1)
    rows, cols = np.nonzero((ink > _INK).any(1))[0], np.nonzero((ink > _INK).any(0))[0]
    return ink[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]


def paint(rng: _Random, canvas: Any, ink: Glyph, top: int, left: int) -> None:
    """Paint a glyph onto a canvas, in a random color that stands out from what is below it."""
    rows, cols = ink.shape
    patch = canvas[top : top + rows, left : left + cols]
    below = patch.mean((0, 1))
    color = rng.uniform(0, 1, 3).astype(np.float32)
    while abs(color - below).max() < _CONTRAST:
        color = rng.uniform(0, 1, 3).astype(np.float32)
    patch += ink[..., None] * (color - patch)
