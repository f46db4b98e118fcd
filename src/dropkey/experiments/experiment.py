"""One of the papers' tables, as data: what is trained, what is read off it, and which rows are compared."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dropkey.experiments.reading import Reading

__all__ = ["Claim", "Experiment", "Row", "Table", "said_by"]


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Args:
        label: what the table calls it.
        options: how it is trained, beside what all rows share; rows of equal options are trained once.
        readings: what is read off this row alone; it replaces what the summary says.
    """

    label: str
    options: Mapping[str, Any]
    readings: Sequence[Reading] = ()

    @property
    def arm(self) -> str:
        """The arm that is trained, as ``dropkey compare --arms`` spells it."""
        options = dict(self.options)
        name = options.pop("regularizer", "none")
        return ":".join([str(name), *(f"{key.replace('_', '-')}={value}" for key, value in options.items())])


@dataclass(frozen=True)
class Table:
    """Rows that are compared; the first is what the others are compared with."""

    title: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Experiment:
    """What one experiment trains and shows.

    Args:
        tables: what is shown, in this order.
        shared: options of all rows.
        seeds: runs of each row.
        task: what is trained.
        readings: what is read off every row.
        pool: experiments of one pool have the same shared options: what they both train is trained once.
    """

    tables: Sequence[Table]
    shared: Mapping[str, Any]
    seeds: int
    task: str = "classification"
    readings: Sequence[Reading] = field(default=())
    pool: str = "vit"

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all tables, those of equal options once."""
        seen = set()
        for table in self.tables:
            for row in table.rows:
                if row.arm not in seen:
                    seen.add(row.arm)
                    yield row


@dataclass(frozen=True)
class Claim:
    """What a paper says, and what an experiment needs: read from the docstring of its function."""

    title: str
    words: str


def said_by(function: Any) -> Claim:
    """Return the docstring of an experiment's function: its first line, and the paragraphs below."""
    title, _, words = (inspect.getdoc(function) or "").replace("``", "").partition("\n\n")
    return Claim(title.rstrip("."), words)
