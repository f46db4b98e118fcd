"""The trials of a search, kept and suggested by Optuna, which is imported here alone."""

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from dropkey.errors import RunError, first_line
from dropkey.experiments.job import Stopped
from dropkey.runs.measure import Measure

__all__ = ["Storage", "Trial", "Trials", "Watching"]

_RANDOM_TRIALS = 8  # before the sampler learns from them
_UNPRUNED_TRIALS = 5  # before any is pruned
_FEWEST = 5  # trials that can say what mattered
_LOCK_SECONDS = 60.0


@dataclass(frozen=True)
class Trial:
    """One way to train that was tried.

    Args:
        number: in the search.
        options: what it varied, by name.
        state: how it ended.
        value: the headline measure after its last epoch, or after the last that it reached.
        seconds: from its start to its end.
        folder: of its run.
        why: it was stopped; empty if not.
    """

    number: int
    options: Mapping[str, Any]
    state: Literal["running", "finished", "stopped"]
    value: float | None
    seconds: float
    folder: str
    why: str = ""


@dataclass(frozen=True)
class Storage:
    """Where a search is kept, opened once in each process.

    Args:
        place: a URL as SQLAlchemy takes it, or a file: ``.log`` for a journal, any other for SQLite.
        name: of the search in it.
        measure: the headline, whose better direction is searched.
        epochs: of a run.
    """

    place: str
    name: str
    measure: Measure
    epochs: int

    @cached_property
    def study(self) -> optuna.Study:
        """The study, made if it is not there yet."""
        with _quiet():
            try:
                study = optuna.create_study(
                    storage=self._storage(),
                    study_name=self.name,
                    load_if_exists=True,
                    direction="maximize" if self.measure.better == "higher" else "minimize",
                    pruner=optuna.pruners.MedianPruner(_UNPRUNED_TRIALS, n_warmup_steps=self.epochs // 3 + 1),
                )
            except Exception as error:  # of Optuna, of SQLAlchemy, or of any database's own library
                raise RunError(f"cannot keep a search in --storage {self.place}: {first_line(error)}") from None
            seed = len(study.get_trials(deepcopy=False))  # one that goes on must not draw what it drew before
            study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_RANDOM_TRIALS, constant_liar=True)
        return study

    def __reduce__(self) -> Any:
        return Storage, (self.place, self.name, self.measure, self.epochs)  # a connection stays in its process

    def trial(self, number: int) -> optuna.Trial:
        """Return a trial that runs, to report to."""
        (identity,) = (t._trial_id for t in self.study.get_trials(deepcopy=False) if t.number == number)
        return optuna.Trial(self.study, identity)

    def _storage(self) -> Any:
        if self.place.endswith(".log"):
            return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(self.place))
        url = self.place if "://" in self.place else f"sqlite:///{self.place}"
        wait = {"connect_args": {"timeout": _LOCK_SECONDS}} if url.startswith("sqlite") else {}
        return optuna.storages.RDBStorage(url, engine_kwargs=wait)


@dataclass(frozen=True)
class Watching:
    """Reports each epoch of a trial, and ends its run when it is behind the others or out of time.

    Args:
        storage: where the search is kept.
        number: of the trial.
        until: when it must end, in seconds since 1970.
    """

    storage: Storage
    number: int
    until: float = math.inf

    def __call__(self, row: Mapping[str, Any]) -> None:
        with _quiet():
            trial = self.storage.trial(self.number)
            step = int(row["epoch"]) + 1
            if step < self.storage.epochs:
                trial.report(float(row[self.storage.measure.val]), step)
                if trial.should_prune():
                    raise Stopped(f"behind the others after {step} of {self.storage.epochs} epochs")
                if time.time() > self.until:
                    raise Stopped(f"out of time after {step} of {self.storage.epochs} epochs")


class Trials:
    """All trials of a search, whoever runs them.

    Args:
        storage: where they are kept.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def enqueue(self, options: Sequence[Mapping[str, Any]]) -> None:
        """Let a search that has no trial yet begin with these options."""
        study = self.storage.study
        if not study.get_trials(deepcopy=False):
            for values in options:
                study.enqueue_trial(dict(values))

    def ask(self, choose: Callable[[Any], Mapping[str, Any]], folder: Callable[[int], Path]) -> Trial:
        """Begin a trial.

        Args:
            choose: returns the options that a trial of Optuna suggests.
            folder: returns the run folder of a number.
        """
        with _quiet():
            trial = self.storage.study.ask()
            trial.set_user_attr("folder", str(folder(trial.number)))
            trial.set_user_attr("options", dict(choose(trial)))
        return self._found(trial.number)

    def finish(self, number: int, value: float) -> None:
        """End a trial whose run has ended."""
        with _quiet():
            self.storage.study.tell(number, value)

    def stop(self, number: int, why: str) -> None:
        """End a trial that has no value of its last epoch."""
        with _quiet():
            self.storage.trial(number).set_user_attr("why", why)
            self.storage.study.tell(number, state=TrialState.PRUNED)

    def all(self) -> list[Trial]:
        """Return the trials that have begun, in their order."""
        found = self.storage.study.get_trials(deepcopy=False)
        return [_read(trial) for trial in found if "options" in trial.user_attrs]

    def importance(self, options: Sequence[str]) -> dict[str, float]:
        """Return each option's share of the differences between the trials that have all of these options.

        Nothing where fewer than five such trials have ended, or all are equal.
        """
        having = [trial for trial in self.all() if trial.state == "finished" and set(options) <= set(trial.options)]
        if len(having) < _FEWEST or not options:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        try:
            with _quiet():
                found = optuna.importance.get_param_importances(
                    self.storage.study, evaluator=evaluator, params=list(options)
                )
        except (ValueError, RuntimeError):
            return {}
        return {name: share for name, share in found.items() if math.isfinite(share)}

    def _found(self, number: int) -> Trial:
        return next(trial for trial in self.all() if trial.number == number)


def _read(trial: FrozenTrial) -> Trial:
    states: dict[TrialState, Literal["running", "finished"]] = {
        TrialState.RUNNING: "running",
        TrialState.COMPLETE: "finished",
    }
    reached = max(trial.intermediate_values, default=0)
    return Trial(
        number=trial.number,
        options=trial.user_attrs["options"],
        state=states.get(trial.state, "stopped"),
        value=trial.value if trial.value is not None else trial.intermediate_values.get(reached),
        seconds=0.0 if trial.duration is None else trial.duration.total_seconds(),
        folder=trial.user_attrs["folder"],
        why=trial.user_attrs.get("why", ""),
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide what Optuna says of itself."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
