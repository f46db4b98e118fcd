"""How far a measured share may lie from its rate by chance."""

import math

__all__ = ["bounds", "is_plausible"]

_CHANCE = 1e-9  # of calling a right dropout wrong
_LIMIT = math.log(2 / _CHANCE)


def is_plausible(share: float, rate: float, draws: int) -> bool:
    """Say whether independent draws of this rate may give this share: Chernoff's bound on a binomial, chance 1e-9."""
    return draws * _divergence(share, rate) <= _LIMIT


def bounds(rate: float, draws: int) -> tuple[float, float]:
    """Return the lowest and the highest share that are plausible.

    Example:
        >>> low, high = bounds(0.1, draws=100_000)
        >>> round(low, 3), round(high, 3)
        (0.094, 0.106)
    """
    return _furthest(rate, 0.0, draws), _furthest(rate, 1.0, draws)


def _furthest(rate: float, end: float, draws: int) -> float:
    near, far = rate, end
    if is_plausible(far, rate, draws):
        return far
    for _ in range(50):
        middle = (near + far) / 2
        near, far = (middle, far) if is_plausible(middle, rate, draws) else (near, middle)
    return near


def _divergence(share: float, rate: float) -> float:
    """Kullback-Leibler divergence between two coins, in nats."""
    parts = [(share, rate), (1 - share, 1 - rate)]
    return math.inf if any(p > 0 and q <= 0 for p, q in parts) else sum(p * math.log(p / q) for p, q in parts if p > 0)
