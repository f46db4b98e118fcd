"""Digit pairs: scenes in which zeros stand in relations to other digits, drawn and never downloaded.

A zero is the subject and another digit beside it, or inside of it, the object; what the one "does" is where it stands
and how large it is. A digit that is further away is in no pair. Nothing is in between: such scenes are drawn again.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dropkey.data.boxed_images import Boxes
from dropkey.data.paired_images import ImagePairs, PairSource
from dropkey.data.scene_painting import blank_canvas, enlarged, glyphs_by_digit, paint
from dropkey.data.seeds import seed_of

__all__ = ["VERBS", "DigitPairs", "digit_pairs", "verbs_between"]

VERBS = ("above", "below", "left_of", "right_of", "touches", "contains", "larger_than")

_SIDE = 128
_SCENES = {"train": 3200, "val": 200}
_SCALES = (2.0, 4.0)  # on digits of 8 x 8 pixels
_AROUND, _INSIDE = (5.0, 6.5), (1.5, 1.9)  # scales of a zero that contains a digit, and of that digit
_PARTNERS = (0.15, 0.45, 0.40)  # shares of zeros with none, one and two
_CONTAINS = 0.12  # share of pairs
_NEAR, _FAR = 6, 14  # pixels between boxes: a pair up to the one, none from the other
_CLEAR = 3  # pixels between boxes that do not touch
_DEPTH = 4  # most pixels by which boxes that touch overlap
_DOMINANT = 1.5  # by this factor the one distance of centers is larger than the other
_LARGER, _ALIKE = 1.35, 1.15  # ratios of heights from which, and up to which
_TRIES = 30

Box = tuple[int, int, int, int]  # left, top, right, bottom
_Random = np.random.Generator


class _Digit(NamedTuple):
    digit: int
    ink: Any
    box: Box


class DigitPairs:
    """Scenes that are a function of split and index, so that every run sees the same ones; some have no pair.

    Args:
        split: "train" or "val"; they share no digit.
        count: number of scenes.
    """

    def __init__(self, split: str, count: int) -> None:
        self.split = split
        self.image_ids: Sequence[int | str] = range(count)
        self.file_names: Sequence[str] = [f"{split}_{index:05d}.png" for index in range(count)]
        self.sizes: Sequence[tuple[int, int]] = [(_SIDE, _SIDE)] * count
        self._scenes: dict[int, list[_Digit]] = {}

    def image(self, index: int) -> Image.Image:
        rng = np.random.default_rng(seed_of("digit_pairs", "paint", self.split, index))
        canvas = blank_canvas(rng, (_SIDE, _SIDE))
        for _, ink, (left, top, _, _) in self._scene(index):
            paint(rng, canvas, ink, top, left)
        return Image.fromarray((canvas * 255).round().astype(np.uint8))

    def boxes(self, index: int) -> Boxes:
        scene = self._scene(index)
        return Boxes.of([item.box for item in scene], [item.digit for item in scene])

    def pairs(self, index: int) -> ImagePairs:
        scene = self._scene(index)
        rows = [
            (subject, other, VERBS.index(verb))
            for subject, zero in enumerate(scene)
            for other, item in enumerate(scene)
            if zero.digit == 0 and item.digit != 0 and _gap(zero.box, item.box) <= _NEAR
            for verb in verbs_between(zero.box, item.box) or ()
        ]
        return ImagePairs.of(rows, len(VERBS))

    def _scene(self, index: int) -> list[_Digit]:
        if index not in self._scenes:
            rng = np.random.default_rng(seed_of("digit_pairs", self.split, index))
            scene = None
            while scene is None:
                scene = _Arrangement(rng, self.split).draw()
            self._scenes[index] = scene
        return self._scenes[index]


def digit_pairs() -> PairSource:
    """Return 3,200 training and 200 validation scenes of 128 x 128 pixels with about two pairs each."""
    train, val = (DigitPairs(split, count) for split, count in _SCENES.items())
    possible = np.ones((len(VERBS), 10), dtype=bool)
    possible[:, 0] = False
    return PairSource(
        name="digit_pairs",
        train=train,
        val=val,
        classes=[str(digit) for digit in range(10)],
        category_ids=range(10),
        verbs=VERBS,
        verb_ids=range(len(VERBS)),
        possible=possible,
        subject=0,
        flips=False,  # a mirror image has other relations
    )


def verbs_between(subject: Box, other: Box) -> list[str] | None:
    """Return what holds between a zero and a digit near it, or None if it is hard to say."""
    height = (subject[3] - subject[1]) / (other[3] - other[1])
    gap = _gap(subject, other)
    if _ALIKE < max(height, 1 / height) < _LARGER:
        return None
    larger = ["larger_than"] if height >= _LARGER else []
    if _inside(other, subject):
        return ["contains", *larger]
    across, down = (other[i] + other[i + 2] - subject[i] - subject[i + 2] for i in (0, 1))
    if 0 < gap < _CLEAR or gap < -_DEPTH:
        return None
    touches = ["touches"] if gap <= 0 else []
    if abs(down) >= _DOMINANT * abs(across):
        return ["above" if down > 0 else "below", *touches, *larger]
    if abs(across) >= _DOMINANT * abs(down):
        return ["left_of" if across > 0 else "right_of", *touches, *larger]
    return None


class _Arrangement:
    """A scene as it is put together."""

    def __init__(self, rng: _Random, split: str) -> None:
        self.rng = rng
        self.glyphs = glyphs_by_digit(split)
        self.placed: list[_Digit] = []

    def draw(self) -> list[_Digit] | None:
        """Return the digits of a scene, or None if they found no room."""
        rng = self.rng
        for _ in range(int(rng.integers(1, 3))):
            partners = int(rng.choice(3, p=_PARTNERS))
            holds = partners > 0 and rng.uniform() < _CONTAINS * 1.6
            if not self._add(0, _AROUND if holds else _SCALES):
                return None
            zero = self.placed[-1]
            for place in range(partners):
                if not self._add(int(rng.integers(1, 10)), _INSIDE if holds and place == 0 else _SCALES, zero):
                    return None
        for _ in range(int(rng.integers(1, 4))):
            if not self._add(int(rng.integers(1, 10)), _SCALES):
                return None
        return self.placed

    def _add(self, digit: int, scales: tuple[float, float], partner: _Digit | None = None) -> bool:
        """Place a digit, beside or inside of its partner if it has one; say whether there was room."""
        rng = self.rng
        glyphs = self.glyphs[digit]
        for _ in range(_TRIES):
            ink = enlarged(glyphs[int(rng.integers(len(glyphs)))], rng.uniform(*scales))
            rows, cols = ink.shape
            if partner is None:
                left, top = (int(rng.integers(_SIDE - side + 1)) for side in (cols, rows))
            elif scales == _INSIDE:
                left, top = _in_the_middle(partner.box, cols, rows)
            else:
                left, top = _beside(rng, partner.box, cols, rows)
            box = (left, top, left + cols, top + rows)
            if min(box) >= 0 and max(box) <= _SIDE and self._fits(digit, box, partner):
                self.placed.append(_Digit(digit, ink, box))
                return True
        return False

    def _fits(self, digit: int, box: Box, partner: _Digit | None) -> bool:
        """Say whether a box is near its partner in a clear relation, and far enough from all others."""
        if partner is not None and verbs_between(partner.box, box) is None:
            return False
        for other in self.placed:
            same_kind = (other.digit == 0) == (digit == 0)
            if other is not partner and _gap(other.box, box) < (2 if same_kind else _FAR):
                return False
        return partner is None or _gap(partner.box, box) <= _NEAR


def _beside(rng: _Random, box: Box, cols: int, rows: int) -> tuple[int, int]:
    """Return left and top of something at a random side of a box."""
    gap = int(rng.choice([*range(-_DEPTH, 1), *range(_CLEAR, _NEAR + 1)]))
    slide = rng.uniform(-0.5, 0.5)
    left = round((box[0] + box[2] - cols) / 2 + slide * (box[2] - box[0]))
    top = round((box[1] + box[3] - rows) / 2 + slide * (box[3] - box[1]))
    return (
        (left, box[3] + gap),
        (left, box[1] - gap - rows),
        (box[2] + gap, top),
        (box[0] - gap - cols, top),
    )[int(rng.integers(4))]


def _in_the_middle(box: Box, cols: int, rows: int) -> tuple[int, int]:
    return (box[0] + box[2] - cols) // 2, (box[1] + box[3] - rows) // 2


def _gap(one: Box, other: Box) -> int:
    """Return the pixels between two boxes, the larger of both axes; below 0 where they overlap."""
    return max(max(one[i], other[i]) - min(one[i + 2], other[i + 2]) for i in (0, 1))


def _inside(box: Box, around: Box) -> bool:
    return all(box[i] > around[i] and box[i + 2] < around[i + 2] for i in (0, 1))
