"""What an experiment has shown: as text, as plain data, and as a page."""

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dropkey.experiments.comparison_figure import panels
from dropkey.experiments.comparison_page import comparison_page
from dropkey.experiments.comparison_table import arm_rows, as_cells, as_data, as_text
from dropkey.experiments.comparison_words import verdict
from dropkey.experiments.experiment import Claim
from dropkey.experiments.study import Filled
from dropkey.pages.page import figure, table, text
from dropkey.runs.measure import Measure
from dropkey.runs.run_folder import write_atomically

__all__ = ["StudyReport"]


@dataclass(frozen=True)
class StudyReport:
    """Tables with the claim that they are about.

    Args:
        name: of the experiment.
        scale: at which it ran.
        claim: what a paper says.
        measures: columns, the headline first.
        tables: filled ones; those whose rows all diverged are left out.
        command: what was typed.
    """

    name: str
    scale: str
    claim: Claim
    measures: Sequence[Measure]
    tables: Sequence[Filled]
    command: str

    @property
    def filled(self) -> list[Filled]:
        """The tables that have a row."""
        return [each for each in self.tables if each.results]

    def text(self) -> str:
        """Return the tables, each with what it says in words."""
        parts = []
        for each in self.filled:
            rows = arm_rows(each.results, self.measures)
            parts.append(f"\n{each.table.title}\n{as_text(rows, self.measures)}\n{verdict(rows, self.measures[0])}")
        return "\n".join(parts)

    def markdown(self) -> str:
        """Return the tables for a document in Markdown."""
        date = datetime.date.today().isoformat()
        parts = [f"`{self.command}`, {date}"]
        for each in self.filled:
            rows = arm_rows(each.results, self.measures)
            header, *body = as_cells(rows, self.measures)
            lines = [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *body)]
            parts += [f"**{each.table.title}**", "\n".join(lines), verdict(rows, self.measures[0])]
        return "\n\n".join(parts) + "\n"

    def data(self) -> dict[str, Any]:
        """Return everything as plain data, the headline of each seed included."""
        headline = self.measures[0].name
        tables = []
        for each in self.filled:
            rows = as_data(arm_rows(each.results, self.measures), self.measures)
            by_seed: dict[str, dict[int, float]] = {row["label"]: {} for row in rows}
            for result in each.results:
                by_seed[result.label][result.seed] = result.summary[f"final_val_{headline}"]
            tables.append({"title": each.table.title, "rows": rows, f"{headline}_by_seed": by_seed})
        first = self.filled[0].results[0].summary
        known = {name: first[name] for name in ("machine", "num_train", "num_val") if name in first}
        date = datetime.date.today().isoformat()
        return {"experiment": self.name, "scale": self.scale, "command": self.command, "date": date, **known} | {
            "claim": self.claim.title,
            "tables": tables,
        }

    def page(self) -> str:
        """Return an HTML page: the first table as a comparison has it, the others below."""
        first, *others = self.filled
        sections = [(each.table.title, self._section(each)) for each in others]
        return comparison_page(
            first.results,
            self.measures,
            title=f"{self.claim.title}. {first.table.title}" if others else self.claim.title,
            lead=" ".join(self.claim.words.split()),
            command=self.command,
            sections=sections,
        )

    def write(self, root: Path) -> list[Path]:
        """Write NAME.json, NAME.md and NAME.html below a folder, and return their paths."""
        if not self.filled:
            return []
        root.mkdir(parents=True, exist_ok=True)
        files = {"json": json.dumps(self.data(), indent=2) + "\n", "md": self.markdown(), "html": self.page()}
        for suffix, content in files.items():
            write_atomically(root / f"{self.name}.{suffix}", content.encode())
        return [root / f"{self.name}.{suffix}" for suffix in files]

    def _section(self, filled: Filled) -> str:
        rows = arm_rows(filled.results, self.measures)
        figures = "".join(figure(*panel) for panel in panels(rows, self.measures[0]))
        words = "".join(f"<p>{text(line)}</p>" for line in verdict(rows, self.measures[0]).splitlines())
        return f'{words}<div class="charts">{figures}</div>{table(as_cells(rows, self.measures), filled.table.title)}'
