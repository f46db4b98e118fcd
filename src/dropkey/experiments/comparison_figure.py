"""The first figure of a comparison: every seed as a dot, and what the arms are worth against the first."""

import math
from collections.abc import Sequence

from dropkey.experiments.comparison import Result
from dropkey.experiments.comparison_table import ArmRow, arm_rows, difference_text, plus_minus
from dropkey.pages.strips import Strip, strip_chart
from dropkey.pages.svg import side_by_side
from dropkey.runs.measure import Measure

__all__ = ["arms_figure", "difference_panel", "panels", "value_panel"]


def arms_figure(results: Sequence[Result], measures: Sequence[Measure]) -> str:
    """Return the figure as one SVG element: values of each arm, and beside them the differences from the first."""
    rows = arm_rows(results, measures)
    return side_by_side([drawing for _, drawing in panels(rows, measures[0])])


def panels(rows: Sequence[ArmRow], headline: Measure) -> list[tuple[str, str]]:
    """Return titles and drawings: the arms, and their differences from the first where there are any."""
    drawings = [(f"Validation {headline.words}", value_panel(rows, headline))]
    if any(row.difference for row in rows):
        drawings.append((f"Against {rows[0].label}, paired by seed", difference_panel(rows, headline)))
    return drawings


def value_panel(rows: Sequence[ArmRow], headline: Measure) -> str:
    """Return a row per arm: a dot per seed, the mean and its 95% interval."""
    strips = [
        Strip(row.label, place, [*row.values.values()], row.means[headline.name], *row.interval, _value(row, headline))
        for place, row in enumerate(rows)
    ]
    title = f"Validation {headline.words} of each arm, a dot per seed, with the mean and its 95% interval"
    return strip_chart(strips, f"validation {_with_unit(headline)}, {headline.better} is better", title=title)


def difference_panel(rows: Sequence[ArmRow], headline: Measure) -> str:
    """Return a row per arm, that of the first a name alone: a dot per seed, the mean difference and its interval."""
    strips = [_compared(row, place, headline) for place, row in enumerate(rows)]
    title = f"Difference of each arm from {rows[0].label} with the same seed, with the mean and its 95% interval"
    side = "right" if headline.better == "higher" else "left"
    label = f"difference of {_with_unit(headline)}; {side} of 0 is better"
    return strip_chart(strips, label, title=title, zero=True)


def _compared(row: ArmRow, place: int, headline: Measure) -> Strip:
    found = row.difference
    if found is None:
        return Strip(row.label, place, [], math.nan, math.nan, math.nan, "")
    words = difference_text(headline, found)
    return Strip(row.label, place, [*row.differences.values()], found.mean, found.low, found.high, words)


def _value(row: ArmRow, headline: Measure) -> str:
    low, high = row.interval
    mean = row.means[headline.name]
    if math.isnan(low):
        return plus_minus(headline, mean, math.nan)
    return f"{headline.text(mean)} [{headline.number(low)}, {headline.number(high)}]"


def _with_unit(measure: Measure) -> str:
    return measure.words if measure.unit in ("", "fraction") else f"{measure.words} in {measure.unit}"
