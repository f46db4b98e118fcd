"""A comparison as one self-contained HTML page: no script, nothing loaded, light and dark."""

import datetime
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import timm
import torch
import yaml
from markupsafe import Markup

from dropkey.experiments.comparison import Result
from dropkey.experiments.comparison_table import ArmRow, arm_rows, difference_text, plus_minus
from dropkey.pages.chart import Line, line_chart
from dropkey.runs.measure import Measure
from dropkey.runs.options import acting

__all__ = ["comparison_page"]

_TEMPLATE = Path(__file__).with_suffix(".html")
_NUM_COLORS = 8  # of the template


def comparison_page(results: Sequence[Result], measures: Sequence[Measure]) -> str:
    """Return the page. The template escapes every name that comes from a user or a file."""
    rows = arm_rows(results, measures)
    colors = {row.label: index % _NUM_COLORS for index, row in enumerate(rows)}
    config = results[0].config
    arms = "1 arm" if len(rows) == 1 else f"{len(rows)} arms"
    seeds = "1 seed" if rows[0].seeds == 1 else f"{rows[0].seeds} seeds"
    template = jinja2.Environment(autoescape=True).from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        title=f"{config.model} on {config.data}: {arms}, {seeds}",
        circumstances=_circumstances(results),
        num_colors=_NUM_COLORS,
        colors=colors,
        header=_header(rows, measures),
        rows=[(row.label, _cells(row, measures)) for row in rows],
        reading=_reading(rows, measures),
        charts=_charts(results, colors, measures),
        sites=_sites(results),
        options=_options(results),
    )


def _header(rows: Sequence[ArmRow], measures: Sequence[Measure]) -> list[str]:
    headline, *others = measures
    names = ["arm", f"val {headline.words}", f"against {rows[0].label}", f"best {headline.words}"]
    return [*names, *(f"val {measure.words}" for measure in others), "gap", "seconds"]


def _cells(row: ArmRow, measures: Sequence[Measure]) -> list[str]:
    headline, *others = measures
    return [
        plus_minus(headline, row.means[headline.name], row.sds[headline.name]),
        difference_text(headline, row.difference),
        headline.text(row.best),
        *(measure.text(row.means[measure.name]) for measure in others),
        plus_minus(headline, row.gap, row.gap_sd),
        f"{row.seconds:.1f}",
    ]


def _charts(
    results: Sequence[Result], colors: Mapping[str, int], measures: Sequence[Measure]
) -> list[tuple[str, Markup]]:
    headline = measures[0]
    curves: list[tuple[str, Callable[[Mapping[str, float]], float]]] = [
        *((f"Validation {measure.words}", _column(measure.val)) for measure in measures),
        ("Training loss (running, with the drops)", _column("train_loss")),
        (f"Gap between clean training and validation {headline.words}", headline.gap),
    ]
    charts = []
    for title, value in curves:
        lines = [_over_seeds(results, label, color, value) for label, color in colors.items()]
        charts.append((title, Markup(line_chart(lines, "epoch", 1, title=title))))  # it escapes its labels
    ratios = [_ratios(results, label, color) for label, color in colors.items()]
    drawn = [line for line in ratios if line is not None]
    if drawn:
        title = "Drop ratio of each block"
        charts.append((title, Markup(line_chart(drawn, "block", 0, title=title, from_zero=True))))
    return charts


def _column(name: str) -> Callable[[Mapping[str, float]], float]:
    return lambda row: row[name]


def _over_seeds(
    results: Sequence[Result], label: str, color: int, value: Callable[[Mapping[str, float]], float]
) -> Line:
    runs = [[value(row) for row in result.rows] for result in results if result.label == label]
    epochs = list(zip(*runs, strict=False))
    return Line(label, color, [statistics.fmean(e) for e in epochs], [min(e) for e in epochs], [max(e) for e in epochs])


def _sites_of(results: Sequence[Result], label: str) -> Sequence[Mapping[str, Any]]:
    sites: Sequence[Mapping[str, Any]] = next(r.summary.get("sites", []) for r in results if r.label == label)
    return sites


def _ratios(results: Sequence[Result], label: str, color: int) -> Line | None:
    """Draw the ratio over the blocks; the sites of a block share it."""
    ratios = list({site["block"]: site["drop_ratio"] for site in _sites_of(results, label)}.values())
    return Line(label, color, ratios, ratios, ratios) if ratios else None


def _sites(results: Sequence[Result]) -> list[list[str]]:
    """Return what each site drops, in every arm that drops anything."""
    return [
        [label, site["name"], str(site["block"]), f"{site['drop_ratio']:.4g}"]
        for label in dict.fromkeys(result.label for result in results)
        for site in _sites_of(results, label)
    ]


def _reading(rows: Sequence[ArmRow], measures: Sequence[Measure]) -> str:
    """Say in words what the intervals show."""
    headline = measures[0]
    fixed = (
        f"All but the best {headline.words} are of the last epoch; the best {headline.words} is of an epoch chosen on "
        f"the same validation data. {headline.better.capitalize()} {headline.words} is better. "
    )
    if len(rows) == 1 or rows[0].seeds < 2:
        return fixed + "With one seed per arm there is no spread, and nothing can be told apart from chance."
    compared = [(row.label, row.difference) for row in rows[1:] if row.difference is not None]
    told = [label for label, difference in compared if difference.low > 0 or difference.high < 0]
    verdict = f"the interval of {' and '.join(told)} leaves out 0" if told else "no interval leaves out 0"
    return (
        f"{fixed}Differences are paired by seed, with Student's 95% interval over {rows[0].seeds} seeds, which knows "
        f"the spread of seeds and not that of the data: {verdict}."
    )


def _circumstances(results: Sequence[Result]) -> str:
    parameters = results[0].summary["num_parameters"]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})"
    today = datetime.date.today().isoformat()
    return f"{parameters:,} parameters; {device}; torch {torch.__version__}, timm {timm.__version__}; {today}"


def _options(results: Sequence[Result]) -> list[tuple[str, str]]:
    """Return the options of each arm that act, as in its config.yaml."""
    configs = {result.label: result.config for result in reversed(results)}
    left_out = ("output", "seed")
    return [
        (label, yaml.safe_dump({k: v for k, v in acting(config).items() if k not in left_out}, sort_keys=False))
        for label, config in reversed(configs.items())
    ]
