"""What a search has found, against none, on seeds that it did not use."""

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dropkey.errors import RunError
from dropkey.experiments.comparison import Arm, Comparison, Result
from dropkey.experiments.comparison_table import ArmRow, arm_rows
from dropkey.experiments.launcher import Launcher
from dropkey.experiments.statistics import Difference
from dropkey.experiments.tuning.search import Search
from dropkey.experiments.tuning.trials import Trial
from dropkey.runs.measure import Measure
from dropkey.runs.options import flag, idle_because, options_of
from dropkey.tasks.registry import DEFAULT_TASK

__all__ = ["Check", "Checked", "Finding", "best_of", "command", "finding"]

_OF_THE_SEARCH = ("val_share",)  # the check trains on all training images, and validates on the source's own


@dataclass(frozen=True)
class Finding:
    """What the check says.

    Args:
        use: whether the regularizer is worth using.
        words: why, in a sentence.
    """

    use: bool
    words: str


def best_of(trials: Sequence[Trial], search: Search) -> tuple[Trial | None, Trial]:
    """Return the best trial without a regularizer, if one has ended, and the best with one.

    Raises:
        RunError: none with a regularizer has ended.
    """
    measure = search.task.measures[0]
    without: Trial | None = None
    best: Trial | None = None
    for trial in trials:
        if trial.state != "finished" or trial.value is None or math.isnan(trial.value):
            continue
        if search.resolve(trial.options).regularizer == "none":
            without = _better(trial, without, measure)
        else:
            best = _better(trial, best, measure)
    if best is None:
        raise RunError("no trial with a regularizer has ended: more --trials, more --hours, or fewer --epochs")
    return without, best


def _better(trial: Trial, other: Trial | None, measure: Measure) -> Trial:
    if other is None or other.value is None:
        return trial
    return trial if measure.is_better(trial.value or 0.0, other.value) else other


class Check:
    """The best of a search and the best without a regularizer, on seeds that the search did not use.

    Args:
        search: that has ended.
        trials: what it has tried.
        seeds: number of runs of each.
    """

    def __init__(self, search: Search, trials: Sequence[Trial], seeds: int) -> None:
        without, self.best = best_of(trials, search)
        none = self.best if without is None else without
        self._search = search
        self.arms = [self._arm({**none.options, "regularizer": "none"}), self._arm(dict(self.best.options))]
        self.root = search.root / "check" / f"trials-{none.number}-and-{self.best.number}"
        self.comparison = Comparison(self.root, search.task, self.arms, range(seeds))

    def options(self, arm: Arm) -> dict[str, Any]:
        """Return the options that train an arm: those that were given, and its own."""
        given = {name: value for name, value in self._search.given.items() if name not in _OF_THE_SEARCH}
        known = [field.name for field in options_of(type(arm.config))]
        names = [name for name in known if name in {*given, *arm.own} and idle_because(arm.config, name) is None]
        task = {} if self._search.task.name == DEFAULT_TASK else {"task": self._search.task.name}
        return {**task, **{name: getattr(arm.config, name) for name in names}}

    def _arm(self, options: dict[str, Any]) -> Arm:
        given = {name: value for name, value in self._search.given.items() if name not in _OF_THE_SEARCH}
        config = self._search.task.resolve({**given, **options, "output": "-"})
        own = {name: getattr(config, name) for name in ("regularizer", *options) if idle_because(config, name) is None}
        return Arm(config.regularizer, config, frozenset(own))

    def run(self, launcher: Launcher, say: Callable[[str], None]) -> "Checked":
        """Train both with all seeds.

        Raises:
            Interrupted: run again, it resumes.
            RunError: one of them diverged.
        """
        results = self.comparison.run(launcher, say)
        for label, error in self.comparison.diverged.items():
            raise RunError(f"{label!r} diverged: {error}")
        rows = arm_rows(results, self._search.task.measures)
        assert rows[1].difference is not None
        found = finding(rows[1].difference, self._search.task.measures[0])
        return Checked(results, rows, found, self.arms[found.use])


@dataclass(frozen=True)
class Checked:
    """What a check has shown.

    Args:
        results: its runs.
        rows: the rows of its table: without and with a regularizer.
        finding: what they say.
        arm: what to use.
    """

    results: Sequence[Result]
    rows: Sequence[ArmRow]
    finding: Finding
    arm: Arm


def command(options: Mapping[str, Any]) -> str:
    """Return the command that trains with these options.

    Example:
        >>> command({"data_dir": "my images", "drop_ratio": 0.3})
        "dropkey train --data-dir 'my images' --drop-ratio 0.3"
    """
    words = [word for name, value in options.items() for word in (flag(name), _text(value))]
    return shlex.join(["dropkey", "train", *words])


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def finding(difference: Difference, measure: Measure) -> Finding:
    """Return what a difference from none says."""
    low, high = difference.low, difference.high
    if math.isnan(low):
        return Finding(False, "use none: these seeds show no spread, and nothing can be told apart from chance")
    gain, loss = (low > 0, high < 0) if measure.better == "higher" else (high < 0, low > 0)
    if gain:
        return Finding(True, "use it: the interval of the difference leaves out 0")
    if loss:
        return Finding(False, "use none: what was found is worse, and the interval of the difference leaves out 0")
    return Finding(False, "use none: the difference cannot be told apart from 0")
