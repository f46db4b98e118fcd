"""A comparison as one self-contained HTML page: no script, nothing loaded, light and dark."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from dropkey.experiments.comparison import Result
from dropkey.experiments.comparison_curves import charts, multiples, sites_of
from dropkey.experiments.comparison_facts import counted, facts
from dropkey.experiments.comparison_figure import arms_figure, panels
from dropkey.experiments.comparison_table import ArmRow, arm_rows, as_cells
from dropkey.experiments.comparison_words import how_tested, verdict
from dropkey.experiments.table_files import as_csv, as_latex
from dropkey.pages.page import download, html_page, swatch, table
from dropkey.pages.svg import standalone
from dropkey.runs.measure import Measure
from dropkey.runs.options import acting

__all__ = ["comparison_page"]

_OF_A_RUN = ("output", "seed")
_TEMPLATE = Path(__file__).with_suffix(".html")


def comparison_page(
    results: Sequence[Result],
    measures: Sequence[Measure],
    *,
    title: str = "",
    lead: str = "",
    command: str = "",
    sections: Sequence[tuple[str, str]] = (),
) -> str:
    """Return the page.

    Args:
        results: the runs; the arm of the first is what the others are compared with.
        measures: what they measure, the headline first.
        title: plain text; what was trained on what, if empty.
        lead: plain text below the title, such as a claim and its published numbers.
        command: what was typed.
        sections: more to show below the table: a heading as plain text, and HTML, in which names are escaped.
    """
    rows = arm_rows(results, measures)
    headline = measures[0]
    looks = {row.label: place for place, row in enumerate(rows)}
    template = jinja2.Environment(autoescape=True).from_string(_TEMPLATE.read_text(encoding="utf-8"))
    title = title or _title(results, rows)
    options, own_options = _options(results)
    body = template.render(
        title=title,
        lead=lead,
        verdict=verdict(rows, headline).splitlines(),
        headline=headline.words,
        first=rows[0].label,
        panels=_marked(panels(rows, headline)),
        downloads=Markup(" · ").join(map(Markup, _downloads(results, rows, measures))),
        table=Markup(table(as_cells(rows, measures), "Arms over their seeds")),
        legend=_legend(headline),
        tests=how_tested(rows),
        sections=_marked(sections),
        swatch=lambda number: Markup(swatch(number)),
        looks=looks,
        multiples=_marked(multiples(results, looks, headline)),
        charts=_marked(charts(results, looks, measures)),
        facts=facts(results, headline, command),
        sites=_sites(results),
        options=options,
        own_options=own_options,
    )
    return html_page(title, [body])


def _title(results: Sequence[Result], rows: Sequence[ArmRow]) -> str:
    config = results[0].config
    return f"{config.model} on {config.data}: {counted(len(rows), 'arm')}, {counted(rows[0].seeds, 'seed')}"


def _downloads(results: Sequence[Result], rows: Sequence[ArmRow], measures: Sequence[Measure]) -> list[str]:
    return [
        download("table.csv", as_csv(rows, measures), "text/csv"),
        download("table.tex", as_latex(rows, measures), "application/x-tex"),
        download("figure.svg", standalone(arms_figure(results, measures)), "image/svg+xml"),
    ]


def _marked(drawings: Sequence[tuple[str, str]]) -> list[tuple[str, Markup]]:
    return [(title, Markup(svg)) for title, svg in drawings]  # drawings escape their labels


def _legend(headline: Measure) -> str:
    return (
        f"All but the best {headline.words} are of the last epoch; the best {headline.words} is of an epoch chosen on "
        f"the same validation data. Plus or minus is the standard deviation over the seeds. "
        f"{headline.better.capitalize()} {headline.words} is better. The gap is by how much clean training data are "
        "measured better than validation data. Seconds are those of training and evaluation, without starting, "
        "compiling and saving."
    )


def _sites(results: Sequence[Result]) -> Markup | None:
    """Return what each site drops, in every arm that drops anything."""
    rows = [
        [label, site["name"], site["block"], f"{site['drop_ratio']:.4g}"]
        for label in dict.fromkeys(result.label for result in results)
        for site in sites_of(results, label)
    ]
    header = ["arm", "site", "block", "drop ratio"]
    return Markup(table([header, *rows], "Drop ratio of each site")) if rows else None


def _options(results: Sequence[Result]) -> tuple[str, Markup | None]:
    """Return the options that all arms share, as in a config.yaml, and a table of those in which they differ."""
    arms: dict[str, dict[str, Any]] = {}
    for result in results:
        arms.setdefault(result.label, {k: v for k, v in acting(result.config).items() if k not in _OF_A_RUN})
    names = list(dict.fromkeys(name for options in arms.values() for name in options))
    shared = [name for name in names if len({repr(options.get(name)) for options in arms.values()}) == 1]
    own = [name for name in names if name not in shared]
    rows = [[label, *(options.get(name, "-") for name in own)] for label, options in arms.items()]
    same = yaml.safe_dump({name: next(iter(arms.values()))[name] for name in shared}, sort_keys=False)
    header = ["arm", *(name.replace("_", " ") for name in own)]
    return same, Markup(table([header, *rows], "Options in which the arms differ")) if own else None
