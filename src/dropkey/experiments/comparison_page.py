"""A comparison as one self-contained HTML page: no script, nothing loaded, light and dark."""

import datetime
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import timm
import torch
import yaml

from dropkey.experiments.comparison import Result
from dropkey.experiments.comparison_table import ArmRow, arm_rows, difference_text, plus_minus
from dropkey.pages.chart import Line, line_chart
from dropkey.pages.page import figure, html_page, text
from dropkey.runs.measure import Measure
from dropkey.runs.options import acting

__all__ = ["comparison_page"]


def comparison_page(results: Sequence[Result], measures: Sequence[Measure]) -> str:
    """Return the page. Every name that comes from a user or a file is escaped."""
    rows = arm_rows(results, measures)
    colors = {row.label: index % 8 for index, row in enumerate(rows)}
    config = results[0].config
    title = f"{config.model} on {config.data}: {len(rows)} arms, {rows[0].seeds} seeds"
    body = [
        f"<h1>{text(title)}</h1>",
        f'<p class="soft">{text(_circumstances(results))}</p>',
        f"<h2>Results</h2>{_table(rows, colors, measures)}",
        f"<p>{text(_reading(rows, measures))}</p>",
        f'<h2>Curves</h2><p class="soft">{text(_BANDS)}</p>{_legend(colors)}<div class="charts">',
        *_charts(results, colors, measures),
        f"</div>{_sites(results)}<h2>Options</h2>{_options(results)}",
    ]
    return html_page(title, body)


_BANDS = "Lines are means over the seeds; bands reach from the lowest to the highest seed."


def _charts(results: Sequence[Result], colors: Mapping[str, int], measures: Sequence[Measure]) -> list[str]:
    headline = measures[0]
    curves: list[tuple[str, Callable[[Mapping[str, float]], float]]] = [
        *((f"Validation {measure.words}", _column(measure.val)) for measure in measures),
        ("Training loss (running, with the drops)", _column("train_loss")),
        (f"Gap between clean training and validation {headline.words}", headline.gap),
    ]
    figures = []
    for title, value in curves:
        lines = [_over_seeds(results, label, color, value) for label, color in colors.items()]
        figures.append(figure(title, line_chart(lines, "epoch", 1, title=title)))
    ratios = [_ratios(results, label, color) for label, color in colors.items()]
    drawn = [line for line in ratios if line is not None]
    if drawn:
        title = "Drop ratio of each block"
        figures.append(figure(title, line_chart(drawn, "block", 0, title=title, from_zero=True)))
    return figures


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


def _sites(results: Sequence[Result]) -> str:
    """List what each site drops, in every arm that drops anything."""
    lines = ["<tr><th>arm</th><th>site</th><th>block</th><th>drop ratio</th></tr>"]
    for label in dict.fromkeys(result.label for result in results):
        for site in _sites_of(results, label):
            cells = [label, site["name"], site["block"], f"{site['drop_ratio']:.4g}"]
            lines.append("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in cells) + "</tr>")
    if len(lines) == 1:
        return ""
    table = f'<div class="scroll"><table>{"".join(lines)}</table></div>'
    return f"<details><summary>Drop ratio of each site</summary>{table}</details>"


def _legend(colors: Mapping[str, int]) -> str:
    keys = [f'<span class="c{color}"><span class="key"></span></span>{text(label)}' for label, color in colors.items()]
    return f"<p>{'&emsp;'.join(keys)}</p>"


def _table(rows: Sequence[ArmRow], colors: Mapping[str, int], measures: Sequence[Measure]) -> str:
    headline, *others = measures
    names = ["arm", f"val {headline.words}", f"against {rows[0].label}", f"best {headline.words}"]
    names += [*(f"val {measure.words}" for measure in others), "gap", "seconds"]
    lines = ["<tr>" + "".join(f"<th>{text(name)}</th>" for name in names) + "</tr>"]
    for row in rows:
        key = f'<span class="c{colors[row.label]}"><span class="key"></span></span>{text(row.label)}'
        cells = [
            plus_minus(headline, row.means[headline.name], row.sds[headline.name]),
            difference_text(headline, row.difference),
            headline.text(row.best),
            *(measure.text(row.means[measure.name]) for measure in others),
            plus_minus(headline, row.gap, row.gap_sd),
            f"{row.seconds:.1f}",
        ]
        lines.append(f"<tr><td>{key}</td>" + "".join(f"<td>{text(cell)}</td>" for cell in cells) + "</tr>")
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def _reading(rows: Sequence[ArmRow], measures: Sequence[Measure]) -> str:
    """Say in words what the intervals allow to say."""
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


def _options(results: Sequence[Result]) -> str:
    parts = []
    for label in dict.fromkeys(result.label for result in results):
        values = acting(next(result.config for result in results if result.label == label))
        listed = yaml.safe_dump(
            {name: values[name] for name in values if name not in ("output", "seed")}, sort_keys=False
        )
        parts.append(f"<details><summary>{text(label)}</summary><pre>{text(listed)}</pre></details>")
    return "".join(parts)
