"""Round numbers along an axis."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Axis", "whole_step"]


def whole_step(unit: int, least: float) -> int:
    """Return the smallest of 1, 2, 5, 10, 20, ... units that is at least so large.

    Example:
        >>> whole_step(1, 12.6)
        20
    """
    decade = unit
    while True:
        for factor in (1, 2, 5):
            if factor * decade >= least:
                return factor * decade
        decade *= 10


@dataclass(frozen=True)
class Axis:
    """Ticks that enclose a range, and where values lie between the first and the last.

    Args:
        ticks: round numbers, evenly spaced, two or more.
    """

    ticks: tuple[float, ...]

    @classmethod
    def around(cls, values: Iterable[float], steps: int = 4) -> "Axis":
        """Return an axis for finite values (others are left out), with about as many steps."""
        finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min(finite), max(finite)
        if high - low < 1e-9 * max(abs(low), abs(high), 1.0):
            margin = 0.05 * max(abs(low), 1.0)
            low, high = low - margin, high + margin
        rough = (high - low) / steps
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        return cls(tuple(place * step for place in range(first, last + 1)))

    @property
    def span(self) -> float:
        """From the first tick to the last."""
        return self.ticks[-1] - self.ticks[0]

    def share(self, value: float) -> float:
        """Return how far along the axis a value lies: 0 at the first tick, 1 at the last."""
        return (value - self.ticks[0]) / self.span

    def words(self) -> list[str]:
        """Return the numbers at the ticks."""
        return [f"{round(tick, 10):g}" for tick in self.ticks]
