"""``--img-size``: one side, or HEIGHTxWIDTH."""

import re

from dropkey.errors import ArgumentError
from dropkey.tasks.detection.families import DetectorFamily

__all__ = ["check_sides", "parse_img_size"]


def parse_img_size(text: str) -> tuple[int, int]:
    """Return (rows, cols), or raise an ArgumentError.

    Example:
        >>> parse_img_size("128x160")
        (128, 160)
    """
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    sides = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if min(sides) < 1:
        raise ArgumentError(f"--img-size takes a side in pixels, or HEIGHTxWIDTH as in 480x640, got {text!r}")
    return sides


def check_sides(sides: tuple[int, int], family: DetectorFamily) -> None:
    """Raise an ArgumentError if a family cannot take images of this size."""
    for side in sides:
        if side % family.multiple:
            near = max(family.multiple, round(side / family.multiple) * family.multiple)
            raise ArgumentError(
                f"--img-size {sides[0]}x{sides[1]}: {family.name} takes sides that are multiples of "
                f"{family.multiple}, such as {near} for {side}"
            )
