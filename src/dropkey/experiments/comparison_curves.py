"""The curves of a comparison: every arm over the epochs."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dropkey.experiments.comparison import Result
from dropkey.pages.chart import Line, line_chart
from dropkey.runs.measure import Measure

__all__ = ["charts", "multiples", "sites_of"]

_SMALL = (280, 170)


def charts(results: Sequence[Result], looks: Mapping[str, int], measures: Sequence[Measure]) -> list[tuple[str, str]]:
    """Return titles and drawings: every measure over the epochs, and what each block drops."""
    headline, step = measures[0], results[0].config.evaluate_every
    curves: list[tuple[str, Callable[[Mapping[str, float]], float]]] = [
        *((f"Validation {measure.words}", _column(measure.val)) for measure in measures if _has(results, measure)),
        ("Training loss (running, with the drops)", _column("train_loss")),
        (f"Gap between clean training and validation {headline.words}", headline.gap),
    ]
    drawings = []
    for title, value in curves:
        lines = [_over_seeds(_runs(results, label, value), label, look) for label, look in looks.items()]
        drawings.append((title, line_chart(lines, "epoch", step, title=title, step=step)))
    ratios = [_ratios(results, label, look) for label, look in looks.items()]
    drawn = [line for line in ratios if line is not None]
    if drawn:
        title = "Drop ratio of each block"
        drawings.append((title, line_chart(drawn, "block", 0, title=title, from_zero=True)))
    return drawings


def multiples(results: Sequence[Result], looks: Mapping[str, int], headline: Measure) -> list[tuple[str, str]]:
    """Return a small chart for each arm but the first: the difference over the epochs, all on one scale."""
    first, *others = looks
    step = results[0].config.evaluate_every
    base = _runs(results, first, _column(headline.val))
    lines = []
    for label in others:
        runs = _runs(results, label, _column(headline.val))
        paired = {
            seed: [value - other for value, other in zip(runs[seed], base[seed], strict=False)]
            for seed in runs
            if seed in base
        }
        if paired:
            lines.append(_over_seeds(paired, label, looks[label]))
    heights = [value for line in lines for value in (*_later(line.low), *_later(line.high))]
    return [
        (
            line.label,
            line_chart(
                [line],
                "epoch",
                step,
                step=step,
                title=f"{line.label}: difference of validation {headline.words} from {first}",
                around=[0.0, min(heights), max(heights)],
                size=_SMALL,
            ),
        )
        for line in lines
    ]


def _has(results: Sequence[Result], measure: Measure) -> bool:
    """Whether a measure was taken while training; what was read off the trained model has no curve."""
    return all(measure.val in row for result in results for row in result.rows)


def _later(values: Sequence[float]) -> Sequence[float]:
    return values[len(values) // 2 :]


def _column(name: str) -> Callable[[Mapping[str, float]], float]:
    return lambda row: row[name]


def _runs(
    results: Sequence[Result], label: str, value: Callable[[Mapping[str, float]], float]
) -> dict[int, list[float]]:
    """Return a value over the epochs for every seed of an arm."""
    return {result.seed: [value(row) for row in result.rows] for result in results if result.label == label}


def _over_seeds(runs: Mapping[int, Sequence[float]], label: str, look: int) -> Line:
    epochs = list(zip(*runs.values(), strict=False))
    return Line(label, look, [statistics.fmean(e) for e in epochs], [min(e) for e in epochs], [max(e) for e in epochs])


def sites_of(results: Sequence[Result], label: str) -> Sequence[Mapping[str, Any]]:
    sites: Sequence[Mapping[str, Any]] = next(r.summary.get("sites", []) for r in results if r.label == label)
    return sites


def _ratios(results: Sequence[Result], label: str, look: int) -> Line | None:
    """Draw the ratio over the blocks; the sites of a block share it."""
    ratios = list({site["block"]: site["drop_ratio"] for site in sites_of(results, label)}.values())
    return Line(label, look, ratios, ratios, ratios) if ratios else None
