"""Mean, spread and paired differences over seeds."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

__all__ = ["Difference", "mean_and_sd", "paired_difference"]


@dataclass(frozen=True)
class Difference:
    """A mean paired difference and its 95% confidence interval (NaN with fewer than two pairs)."""

    mean: float
    low: float
    high: float


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation, NaN for a single value.

    Example:
        >>> mean_and_sd([1.0, 3.0])
        (2.0, 1.4142135623730951)
    """
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def paired_difference(values: Sequence[float], others: Sequence[float]) -> Difference:
    """Return ``values - others`` of the same seeds, with Student's interval: few seeds give a wide one."""
    differences = [value - other for value, other in zip(values, others, strict=True)]
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return Difference(mean, math.nan, math.nan)
    if min(differences) == max(differences):  # SciPy warns of precision lost, and gives no interval
        return Difference(mean, mean, mean)
    interval = stats.ttest_rel(values, others).confidence_interval(0.95)
    return Difference(mean, float(interval.low), float(interval.high))
