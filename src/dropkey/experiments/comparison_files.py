"""Everything that a comparison leaves beside its runs."""

import json
from collections.abc import Sequence
from pathlib import Path

from dropkey.experiments.comparison import Result
from dropkey.experiments.comparison_figure import arms_figure
from dropkey.experiments.comparison_page import comparison_page
from dropkey.experiments.comparison_table import arm_rows, as_data
from dropkey.experiments.table_files import as_csv, as_latex
from dropkey.pages.svg import standalone
from dropkey.runs.measure import Measure
from dropkey.runs.run_folder import write_atomically

__all__ = ["write_comparison"]


def write_comparison(
    root: Path,
    results: Sequence[Result],
    measures: Sequence[Measure],
    *,
    title: str = "",
    lead: str = "",
    command: str = "",
    sections: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write report.html, and beside it results.json, table.csv, table.tex and figure.svg; return the page's path.

    Args:
        root: the folder.
        results: as for ``comparison_page``, like everything else.
        measures: what they measure, the headline first.
        title: of the page.
        lead: plain text below it.
        command: what was typed.
        sections: more for the page: headings and HTML.
    """
    rows = arm_rows(results, measures)
    page = comparison_page(results, measures, title=title, lead=lead, command=command, sections=sections)
    files = {
        "results.json": json.dumps(as_data(rows, measures), indent=2) + "\n",
        "table.csv": as_csv(rows, measures),
        "table.tex": as_latex(rows, measures),
        "figure.svg": standalone(arms_figure(results, measures)),
        "report.html": page,
    }
    for name, content in files.items():
        write_atomically(root / name, content.encode())
    return root / "report.html"
