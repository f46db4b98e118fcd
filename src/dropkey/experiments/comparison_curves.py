"""The curves of a comparison: every arm over the epochs."""

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dropkey.experiments.comparison import Result
from dropkey.pages.chart import Line, line_chart
from dropkey.runs.measure import Measure

__all__ = ["charts", "multiples", "sites_of"]

_SMALL = (280, 170)


def charts(results: Sequence[Result], looks: Mapping[str, int], measures: Sequence[Measure]) -> list[tuple[str, str]]:
    """Return titles and drawings: every measure over the epochs, where there are several, and what each block drops."""
    headline = measures[0]
    curves: list[tuple[str, Callable[[Mapping[str, float]], float]]] = [
        *((f"Validation {measure.words}", _column(measure.val)) for measure in measures if _has(results, measure)),
        ("Training loss (running, with the drops)", _column("train_loss")),
    ]
    if _has(results, headline):
        curves.append((f"Gap between clean training and validation {headline.words}", headline.gap))
    names = _spoken(list(looks))
    drawings = []
    for title, value in curves:
        lines = [_over_seeds(_runs(results, label, value), names[label], look) for label, look in looks.items()]
        if max(len(line.middle) for line in lines) > 1:
            drawings.append((title, line_chart(lines, "epoch", 1, title=title)))
    ratios = [_ratios(sites_of(results, label), names[label], look) for label, look in looks.items()]
    drawn = [line for line in ratios if line is not None]
    if drawn:
        title = "Drop ratio of each block"
        drawings.append((title, line_chart(drawn, "block", 0, title=title, from_zero=True)))
    return drawings


def multiples(results: Sequence[Result], looks: Mapping[str, int], headline: Measure) -> list[tuple[str, str]]:
    """Return a small chart for each arm but the first: the difference over the epochs.

    They have one scale, but for arms that differ by so much that the others would be pressed flat.
    """
    if not _has(results, headline):
        return []
    first, *others = looks
    lines = [_from_first(results, first, label, looks[label], headline) for label in others]
    lines = [line for line in lines if len(line.middle) > 1]
    if not lines:
        return []
    reach = {line.label: max(map(abs, (*_later(line.low), *_later(line.high)))) for line in lines}
    usual = 3 * statistics.median_low(reach.values())
    common = max(value for value in reach.values() if value <= usual or not usual)
    drawings = []
    for line in lines:
        own = reach[line.label] > common
        height = reach[line.label] if own else common
        title = f"{line.label}: difference of validation {headline.words} from {first}"
        drawing = line_chart([line], "epoch", 1, title=title, around=[-height, 0.0, height], size=_SMALL)
        drawings.append((f"{line.label} (its own scale)" if own else line.label, drawing))
    return drawings


def _from_first(results: Sequence[Result], first: str, label: str, look: int, headline: Measure) -> Line:
    base, runs = (_runs(results, arm, _column(headline.val)) for arm in (first, label))
    paired = {
        seed: {epoch: value - base[seed][epoch] for epoch, value in runs[seed].items() if epoch in base[seed]}
        for seed in runs
        if seed in base
    }
    return _over_seeds(paired, label, look)


def _has(results: Sequence[Result], measure: Measure) -> bool:
    """Whether a measure was taken while training; what was read off the trained model has no curve."""
    return all(measure.val in row for result in results for row in result.rows)


def _later(values: Sequence[float]) -> Sequence[float]:
    return values[len(values) // 2 :]


def _column(name: str) -> Callable[[Mapping[str, float]], float]:
    return lambda row: row[name]


def _runs(
    results: Sequence[Result], label: str, value: Callable[[Mapping[str, float]], float]
) -> dict[int, dict[int, float]]:
    """Return a value for every seed of an arm, by the number of the epoch from 1."""
    return {
        result.seed: {int(row["epoch"]) + 1: value(row) for row in result.rows}
        for result in results
        if result.label == label
    }


def _over_seeds(runs: Mapping[int, Mapping[int, float]], name: str, look: int) -> Line:
    """Draw what all seeds have measured; epochs without a measure are as many between any two with one."""
    shared = sorted(set.intersection(*(set(values) for values in runs.values()))) if runs else []
    epochs = [[values[epoch] for values in runs.values()] for epoch in shared]
    middle, low, high = ([of(epoch) for epoch in epochs] for of in (statistics.fmean, min, max))
    return Line(name, look, middle, low, high, step=shared[0] if shared else 1)


def sites_of(results: Sequence[Result], label: str) -> Sequence[Mapping[str, Any]]:
    sites: Sequence[Mapping[str, Any]] = next(r.summary.get("sites", []) for r in results if r.label == label)
    return sites


def _ratios(sites: Sequence[Mapping[str, Any]], name: str, look: int) -> Line | None:
    """Draw the ratio over the blocks; the sites of a block share it."""
    ratios = list({site["block"]: site["drop_ratio"] for site in sites}.values())
    return Line(name, look, ratios, ratios, ratios) if ratios else None


def _spoken(labels: Sequence[str]) -> dict[str, str]:
    """Return labels without the names of their options, where that tells them apart: ``dropkey 0.3 block``."""
    short = {label: re.sub(r":[^:=]*=", " ", label) for label in labels}
    return short if len(set(short.values())) == len(labels) else dict(zip(labels, labels, strict=True))
