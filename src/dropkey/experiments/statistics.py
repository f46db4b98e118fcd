"""Means, intervals and paired tests over seeds."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy import integrate, special

__all__ = ["ALPHA", "MANY_SEEDS", "POWER", "Difference", "holm", "mean_and_sd", "mean_interval", "paired_difference"]

ALPHA = 0.05
POWER = 0.8
MANY_SEEDS = 9_999  # the search for a number of seeds ends here


@dataclass(frozen=True)
class Difference:
    """A mean paired difference with Student's 95% interval and test.

    The interval and what follows it are NaN where the differences have no spread to judge them by: fewer than two
    pairs, or the same amount, other than 0, in every pair.

    Args:
        mean: of the differences.
        low: lower end of the interval.
        high: its upper end.
        p_value: of the two-sided paired t-test against 0, this difference alone.
        seeds_needed: pairs with which that test would tell a difference of this mean and spread from 0 at a level of
            0.05 with a power of 0.8; infinite where 9,999 pairs would not do.
        pairs: number of pairs.
    """

    mean: float
    low: float
    high: float
    p_value: float = math.nan
    seeds_needed: float = math.nan
    pairs: int = 0


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation, NaN for a single value.

    Example:
        >>> mean_and_sd([1.0, 3.0])
        (2.0, 1.4142135623730951)
    """
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return Student's 95% interval of a mean, NaN for fewer than two values."""
    if len(values) < 2:
        return math.nan, math.nan
    mean, sd = mean_and_sd(values)
    half = _critical(len(values) - 1) * sd / math.sqrt(len(values))
    return mean - half, mean + half


def paired_difference(values: Sequence[float], others: Sequence[float]) -> Difference:
    """Return ``values - others`` of the same seeds; few seeds give a wide interval."""
    differences = [value - other for value, other in zip(values, others, strict=True)]
    mean, pairs = statistics.fmean(differences), len(differences)
    rounding = 1e-12 * max(map(abs, [*values, *others]))
    if max(differences) - min(differences) > rounding:
        effect = abs(mean) / statistics.stdev(differences)
        p_value = 2 * float(special.stdtr(pairs - 1, -effect * math.sqrt(pairs)))
        return Difference(mean, *mean_interval(differences), p_value, _seeds_needed(effect), pairs)
    if pairs > 1 and abs(mean) <= rounding:
        return Difference(0.0, 0.0, 0.0, 1.0, math.inf, pairs)
    return Difference(mean, math.nan, math.nan, pairs=pairs)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's method; NaN stays NaN, and counts as a test.

    Below a level of 0.05, the chance that any of them is a false alarm is 5% at most.

    Example:
        >>> [round(p, 3) for p in holm([0.04, 0.01, 0.03])]
        [0.06, 0.03, 0.06]

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    order = sorted(range(len(p_values)), key=lambda place: (math.isnan(p_values[place]), p_values[place]))
    corrected = [math.nan] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(order):
        if not math.isnan(p_values[place]):
            highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
            corrected[place] = highest
    return corrected


def _critical(freedom: int) -> float:
    """Return how large Student's t must be to be told from 0."""
    return float(special.stdtrit(freedom, 1 - ALPHA / 2))


def _seeds_needed(effect: float) -> float:
    """Return the smallest number of pairs for an effect: mean over standard deviation of the differences."""
    if effect == 0:
        return math.inf
    normal = special.ndtri(1 - ALPHA / 2) + special.ndtri(POWER)
    pairs = max(2.0, float((normal / effect) ** 2) // 1)  # were the spread known; Student's test needs a few more
    while pairs <= MANY_SEEDS:
        if _power(effect, int(pairs)) >= POWER:
            return pairs
        pairs += 1
    return math.inf


def _power(effect: float, pairs: int) -> float:
    """Return how often the two-sided paired t-test finds an effect.

    SciPy's noncentral t loses its digits far from 0, so the chance of missing it is integrated over the quantiles of
    the standard deviation that a sample shows, 1 being the true one.
    """
    shift, freedom = effect * math.sqrt(pairs), pairs - 1
    critical = _critical(freedom)

    def missed(quantiles: Any) -> Any:
        reach = critical * (special.gammaincinv(freedom / 2, quantiles) / (freedom / 2)) ** 0.5
        return special.ndtr(reach - shift) - special.ndtr(-reach - shift)

    return 1 - float(integrate.fixed_quad(missed, 0, 1, n=200)[0])
