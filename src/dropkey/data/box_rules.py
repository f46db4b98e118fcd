"""What makes a box usable, whatever file it stands in."""

import math
from typing import Any

from dropkey.errors import DataError

__all__ = ["Box", "BoxRules", "is_number"]

_ROUNDING = 1.0  # pixels that a box may reach beyond its image without being called wrong

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


class BoxRules:
    """Refuses boxes that no detector can learn, or mends them and counts.

    Args:
        mend: leave out boxes of no area and cut off what lies outside of the image, instead of refusing both.
    """

    def __init__(self, mend: bool) -> None:
        self.mend = mend
        self.left_out = 0
        self.cut = 0

    def usable(self, box: Box, size: tuple[int, int], name: str) -> Box | None:
        """Return a box as it is used, or None if it is left out.

        Args:
            box: corners in pixels.
            size: (rows, cols) of its image.
            name: what it is called in messages.

        Raises:
            DataError: a box that cannot be used and is not to be mended.
        """
        left, top, right, bottom = box
        rows, cols = size
        if not all(map(math.isfinite, box)):
            raise DataError(f"{name} has a number that is not finite: mend or delete it")
        outside = max(-left, -top, right - cols, bottom - rows)
        if outside > _ROUNDING and self.mend:
            self.cut += 1
            left, right = (min(max(x, 0.0), cols) for x in (left, right))
            top, bottom = (min(max(y, 0.0), rows) for y in (top, bottom))
        elif outside > _ROUNDING:
            raise DataError(
                f"{name} reaches {outside:g} pixels out of its image of {cols} x {rows}: correct it, or --mend-boxes"
            )
        if right > left and bottom > top:
            return left, top, right, bottom
        if not self.mend:
            raise DataError(f"{name} is {right - left:g} wide and {bottom - top:g} high: correct it, or --mend-boxes")
        self.left_out += 1
        return None

    def notes(self) -> list[str]:
        """Return what was done to boxes, for the user."""
        done = [(self.left_out, "without area left out"), (self.cut, "cut at the edge of their image")]
        said = [f"{count} {'box' if count == 1 else 'boxes'} {what}" for count, what in done if count]
        return [", ".join(said)] if said else []


def is_number(value: Any) -> bool:
    """Return whether a value from a file is a number and not, say, a text that looks like one."""
    return isinstance(value, int | float) and not isinstance(value, bool)
