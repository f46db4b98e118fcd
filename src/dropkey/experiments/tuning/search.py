"""A search under way: trials one after another or side by side, until the budget is spent."""

import contextlib
import dataclasses
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dropkey.errors import DivergedError
from dropkey.experiments.job import Job, Outcome, Stopped
from dropkey.experiments.launcher import Launcher
from dropkey.experiments.tuning.budget import Budget
from dropkey.experiments.tuning.search_file import SearchFile
from dropkey.experiments.tuning.space import Dimension, chosen_by
from dropkey.experiments.tuning.trials import Trial, Trials, Watching
from dropkey.runs.config import RunConfig
from dropkey.runs.interruption import Interrupted
from dropkey.tasks.task import Task

__all__ = ["FIRST_SEED", "Search"]

FIRST_SEED = 1000  # of trial 0; each has the next one, and those below are for the check


class Search:
    """Trials below one folder; run again, it goes on, with the trials that were under way when it ended.

    Args:
        root: the folder.
        task: what is trained.
        given: options of all trials.
        space: what trials vary.
        trials: those so far, of this folder and of others that search in the same storage.
        budget: how long to go on.
        file: remembers the time spent.
        runs_after: number of whole runs that come after the search and need time of the budget.
    """

    def __init__(
        self,
        root: Path,
        task: Task[Any, Any],
        given: Mapping[str, Any],
        space: Sequence[Dimension],
        trials: Trials,
        budget: Budget,
        file: SearchFile,
        runs_after: int,
    ) -> None:
        self.root = root
        self.task = task
        self.given = given
        self.space = space
        self.trials = trials
        self.budget = budget
        self.file = file
        self.runs_after = runs_after

    def run(self, launcher: Launcher, say: Callable[[str], None]) -> list[Trial]:
        """Try until the budget is spent, and return all trials that have begun.

        Args:
            launcher: runs the runs.
            say: called with a line for every trial that has ended.

        Raises:
            Interrupted: the same search, run again, goes on.
        """
        base = self.resolve({})
        usual = {dimension.option: getattr(base, dimension.option) for dimension in self.space}
        self.trials.enqueue([{**usual, "regularizer": name} for name in ("none", "dropkey")])
        try:
            with contextlib.closing(launcher.run(self._jobs(launcher.threads))) as ended:
                for job, outcome in ended:
                    say(self._ended(int(job.config.seed) - FIRST_SEED, outcome))
                    self._account(launcher.room)
        except KeyboardInterrupt:
            raise Interrupted from None
        return self.trials.all()

    def resolve(self, options: Mapping[str, Any], seed: int = FIRST_SEED, folder: Path | None = None) -> RunConfig:
        """Return the config of a run with these options beside those of all."""
        config = self.task.resolve({**self.given, **options, "seed": seed, "output": str(folder or self.root)})
        assert isinstance(config, RunConfig)
        return config

    def _jobs(self, threads: int) -> Iterator[Job]:
        """Yield what was under way when an earlier command ended, then new trials while the budget allows."""
        for trial in self.trials.all():
            if trial.state == "running" and Path(trial.folder).parent == self._folder(trial.number).parent:
                yield self._job(trial, threads)
        while self.budget.allows(len(self.trials.all())):
            yield self._job(self.trials.ask(self._choose, self._folder), threads)

    def _choose(self, trial: Any) -> Mapping[str, Any]:
        return chosen_by(trial, self.space, self.resolve)

    def _folder(self, number: int) -> Path:
        return self.root.absolute() / "trials" / f"{number:04d}"

    def _job(self, trial: Trial, threads: int) -> Job:
        config = self.resolve(trial.options, FIRST_SEED + trial.number, Path(trial.folder))
        config = dataclasses.replace(config, threads=config.threads or threads)
        watch = Watching(self.trials.storage, trial.number, self.budget.until)
        return Job(f"trial {trial.number} ({in_words(trial.options)})", config, watch)

    def _ended(self, number: int, outcome: Outcome) -> str:
        headline = self.task.measures[0]
        if isinstance(outcome, DivergedError | Stopped):
            self.trials.stop(number, str(outcome))
        else:
            self.trials.finish(number, outcome[f"final_val_{headline.name}"])
        trials = self.trials.all()
        trial = next(trial for trial in trials if trial.number == number)
        value = "diverged" if trial.value is None else f"{headline.words} {headline.text(trial.value)}"
        done = sum(trial.state != "running" for trial in trials)
        count = f"{done:>3}/{self.budget.trials}" if self.budget.trials else f"{done:>3}"
        return f"{count}  trial {number}: {value}  {in_words(trial.options)}{_stopped(trial)}"

    def _account(self, room: int) -> None:
        """Remember the time spent, and leave enough for what comes after the search."""
        self.file.write_seconds(self.budget.seconds)
        whole = [trial.seconds for trial in self.trials.all() if trial.state == "finished"]
        self.budget.reserve = statistics.median(whole) * math.ceil(self.runs_after / max(1, room)) if whole else 0.0


def _stopped(trial: Trial) -> str:
    return f"; stopped, {trial.why}" if trial.why else ""


def in_words(options: Mapping[str, Any]) -> str:
    """Return options as an arm of ``dropkey compare``.

    Example:
        >>> in_words({"lr": 0.003, "regularizer": "dropkey", "drop_ratio": 0.3})
        'dropkey:lr=0.003:drop-ratio=0.3'
    """
    rest = dict(options)
    name = rest.pop("regularizer", "")
    return ":".join([*([name] if name else []), *(f"{key.replace('_', '-')}={value}" for key, value in rest.items())])
