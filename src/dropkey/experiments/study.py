"""An experiment under way: its runs, what is read off them, and its tables."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dropkey.experiments.comparison import Arm, Comparison, Result
from dropkey.experiments.experiment import Experiment, Row, Table
from dropkey.experiments.launcher import Launcher
from dropkey.experiments.reading import Reading, readings_of
from dropkey.runs.config import RunConfig
from dropkey.runs.measure import Measure
from dropkey.tasks.registry import named_task
from dropkey.tasks.task import Task

__all__ = ["Filled", "Study", "config_of"]


@dataclass(frozen=True)
class Filled:
    """A table with the results of its rows, the first among them; rows without any diverged."""

    table: Table
    results: Sequence[Result]


class Study:
    """An experiment whose runs are below a folder.

    Args:
        experiment: what is trained and shown.
        root: of the runs; experiments of one pool share it.
        seeds: number of runs of each row.

    Raises:
        DropKeyError: options that no run can use, or a folder with other runs.
    """

    def __init__(self, experiment: Experiment, root: Path, seeds: int) -> None:
        self.experiment = experiment
        self.seeds = range(seeds)
        self.task: Task[Any, Any] = named_task(experiment.task)
        arms = [Arm(row.arm, config_of(experiment, row)) for row in experiment.rows()]
        self.comparison = Comparison(root, self.task, arms, self.seeds)

    @property
    def measures(self) -> list[Measure]:
        """Columns of the tables: what the task measures, and what is read beside it."""
        return columns(self.task.measures, self.experiment)

    def run(self, launcher: Launcher, say: Callable[[str], None]) -> list[Filled]:
        """Train what is not finished, read what is not read, and return the tables.

        Raises:
            Interrupted: the same study, run again, resumes.
        """
        self.comparison.run(launcher, say)
        say("reading what was trained")
        tables = []
        for table in self.experiment.tables:
            if table.rows[0].arm in self.comparison.diverged:
                say(f"left out: {table.title}, since the row that the others are compared with diverged")
            else:
                tables.append(Filled(table, self._results(table)))
        return tables

    def _results(self, table: Table) -> list[Result]:
        rows = [row for row in table.rows if row.arm not in self.comparison.diverged]
        return [self._result(row, seed) for row in rows for seed in self.seeds]

    def _result(self, row: Row, seed: int) -> Result:
        trained = self.comparison.result(row.arm, seed)
        values = readings_of(self.comparison.folder(row.arm, seed), [*self.experiment.readings, *row.readings])
        read = {f"{which}_val_{name}": value for name, value in values.items() for which in ("final", "best")}
        return dataclasses.replace(trained, label=row.label, summary={**trained.summary, **read})


def columns(measures: Sequence[Measure], experiment: Experiment) -> list[Measure]:
    """Return the measures of a task, then those of all readings, each once."""
    readings: list[Reading] = list(experiment.readings)
    for table in experiment.tables:
        for row in table.rows:
            readings += row.readings
    found = {measure.name: measure for measure in measures}
    for reading in readings:
        for measure in reading.measures:
            found.setdefault(measure.name, measure)
    return list(found.values())


def config_of(experiment: Experiment, row: Row) -> RunConfig:
    """Return all options of a row, or raise a DropKeyError for what no run can use."""
    config = named_task(experiment.task).resolve({**experiment.shared, **row.options}, set(row.options))
    assert isinstance(config, RunConfig)
    return config
