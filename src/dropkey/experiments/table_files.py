"""The table of a comparison for other programs: CSV with every digit, and LaTeX for a paper."""

import csv
import io
import re
from collections.abc import Sequence

from dropkey.experiments.comparison_table import ArmRow, as_cells, as_data
from dropkey.runs.measure import Measure

__all__ = ["as_csv", "as_latex"]


def as_csv(rows: Sequence[ArmRow], measures: Sequence[Measure]) -> str:
    """Return a line per arm with the numbers of results.json; those of the difference begin with ``difference_``."""
    lines = []
    for row in as_data(rows, measures):
        difference, values = row.pop("difference") or {}, row.pop("values")
        lines.append(
            row
            | {f"difference_{name}": value for name, value in difference.items()}
            | {f"seed_{seed}": value for seed, value in values.items()}
        )
    names = list(dict.fromkeys(name for line in lines for name in line))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def as_latex(rows: Sequence[ArmRow], measures: Sequence[Measure]) -> str:
    """Return a ``tabular`` with the rules of the booktabs package."""
    header, *body = as_cells(rows, measures)
    lines = [
        "% needs \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        "\\toprule",
        _line(header),
        "\\midrule",
        *(_line(cells) for cells in body),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return " & ".join(map(_latex, cells)) + " \\\\"


_SPECIAL = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "±": "$\\pm$",
    "<": "$<$",
    ">": "$>$",
}


def _latex(words: str) -> str:
    """Return text as LaTeX shows it; signs of numbers are set as such."""
    escaped = "".join(_SPECIAL.get(letter, letter) for letter in words)
    return re.sub(r"(?<![\w-])([+-])(?=\d)", r"$\1$", escaped)
