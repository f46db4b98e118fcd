"""``--img-size``: one side, or HEIGHTxWIDTH."""

import re

import torch
from torch import nn

from dropkey.errors import ArgumentError, first_line
from dropkey.tasks.detection.network import family_of

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


def check_sides(network: nn.Module, sides: tuple[int, int]) -> None:
    """Raise an ArgumentError if a detector cannot take images of this size, or cannot run at all."""
    family = family_of(network)
    for side in sides:
        if side % family.multiple:
            near = max(family.multiple, round(side / family.multiple) * family.multiple)
            raise ArgumentError(
                f"--img-size {sides[0]}x{sides[1]}: {family.name} takes sides that are multiples of "
                f"{family.multiple}, such as {near} for {side}"
            )
    try:
        with torch.no_grad():
            network.eval()(pixel_values=torch.zeros(1, 3, *sides))
    except (RuntimeError, ValueError, IndexError) as error:
        raise ArgumentError(
            f"{family.name} cannot take images of {sides[0]}x{sides[1]} pixels: {first_line(error)}"
        ) from error
    finally:
        network.train()
