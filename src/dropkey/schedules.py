"""How the drop ratio changes with depth: pure functions (drop_ratio, depth) -> one ratio per block, first block first.

Example:
    >>> linear_decay(0.4, depth=3)
    [0.4, 0.2, 0.0]
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dropkey.arguments import short
from dropkey.errors import ArgumentError, did_you_mean

__all__ = [
    "Schedule",
    "check_base_ratio",
    "check_drop_ratio",
    "constant",
    "cosine_decay",
    "drawn_ratio",
    "linear_decay",
    "linear_growth",
    "listed",
    "ratios",
]

_DRAWN_AS_0, _DRAWN_AS_1 = 0.5 / 65536, 1 - 0.5 / 65536
_STEPS = "ratios are drawn in steps of 1/65536, so it must be 0 or between 7.63e-06 and 0.99999"

Schedule = str | Sequence[float] | Callable[[float, int], Sequence[float]]


def constant(drop_ratio: float, depth: int) -> list[float]:
    """Return the same ratio for every block."""
    return [drop_ratio] * depth


def linear_decay(drop_ratio: float, depth: int) -> list[float]:
    """Return ratios that fall in equal steps from ``drop_ratio`` at the first block to 0 at the last.

    The DropKey paper's schedule. A model of one block gets ``[drop_ratio]``.

    Args:
        drop_ratio: ratio of the first block, in [0, 1).
        depth: number of blocks, at least 1.

    Returns:
        ``depth`` ratios.

    Source: Li et al., DropKey for Vision Transformer, CVPR 2023, section on the drop ratio schedule.
    """
    return [drop_ratio * height for height in _heights(depth)]


def linear_growth(drop_ratio: float, depth: int) -> list[float]:
    """Return ``linear_decay`` backwards: 0 at the first block, ``drop_ratio`` at the last."""
    return linear_decay(drop_ratio, depth)[::-1]


def cosine_decay(drop_ratio: float, depth: int) -> list[float]:
    """Return ratios that fall from ``drop_ratio`` to 0 along half a cosine: slowly at both ends."""
    return [drop_ratio * (1 - math.cos(math.pi * height)) / 2 for height in _heights(depth)]


def ratios(schedule: Schedule, drop_ratio: float, depth: int) -> list[float]:
    """Return the ratio of each of ``depth`` blocks for a schedule given by name, as a function, or as the ratios.

    Raises:
        ArgumentError: an unknown name, a list of another length than ``depth``, or a ratio outside [0, 1).
    """
    if isinstance(schedule, str):
        result = list(named(schedule)(drop_ratio, depth))
    else:
        result = listed(schedule(drop_ratio, depth) if callable(schedule) else schedule)
    if len(result) != depth:
        raise ArgumentError(
            f"the schedule gives {len(result)} drop ratios, but the model has {depth} blocks with attention"
        )
    return [check_drop_ratio(ratio) for ratio in result]


def listed(schedule: Iterable[float]) -> list[float]:
    """Return the ratios of a schedule that is not given by name, or raise an ArgumentError if there are none."""
    try:
        return list(schedule)
    except TypeError:
        raise ArgumentError(
            f"schedule must be a name ({', '.join(_BY_NAME)}), a function (drop_ratio, depth) -> ratios, or the "
            f"ratios, one a block; got {short(schedule)}"
        ) from None


def named(name: str) -> Callable[[float, int], list[float]]:
    """Return the schedule called ``name``, or raise an ArgumentError that lists the known ones."""
    if name not in _BY_NAME:
        hint = did_you_mean(name, _BY_NAME)
        raise ArgumentError(f"unknown schedule {name!r}{hint}; known: {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def check_drop_ratio(drop_ratio: Any) -> float:
    """Return ``drop_ratio`` as a float, or raise an ArgumentError if it is not a number in [0, 1): a text is none."""
    try:
        value = float(None if isinstance(drop_ratio, str) else drop_ratio)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ArgumentError(f"drop_ratio must be a number in [0, 1), got {short(drop_ratio)}") from None
    if not 0 <= value < 1:
        raise ArgumentError(f"drop_ratio must be in [0, 1), got {short(drop_ratio)}: it is the share of keys dropped")
    if value >= _DRAWN_AS_1:
        raise ArgumentError(f"drop_ratio {drop_ratio!r} would be drawn as 1: {_STEPS}")
    return value


def check_base_ratio(drop_ratio: float) -> float:
    """Return a drop ratio that somebody asks for, or raise an ArgumentError if it would be drawn as 0 or as 1.

    Ratios are drawn in steps of 1/65536. What a schedule makes of a ratio may be smaller, and then counts as 0.
    """
    value = check_drop_ratio(drop_ratio)
    if 0 < value <= _DRAWN_AS_0:
        raise ArgumentError(f"drop_ratio {drop_ratio!r} would be drawn as 0: {_STEPS}")
    return value


def drawn_ratio(drop_ratio: float) -> float:
    """Return the ratio at which keys are dropped: ``drop_ratio`` rounded to 1/65536."""
    return round(drop_ratio * 65536) / 65536


def _heights(depth: int) -> list[float]:
    """Relative height above the last block: exactly 1 for the first block, exactly 0 for the last."""
    return [(depth - 1 - index) / (depth - 1) for index in range(depth)] if depth > 1 else [1.0]


_BY_NAME = {
    "linear_decay": linear_decay,
    "constant": constant,
    "linear_growth": linear_growth,
    "cosine_decay": cosine_decay,
}
