"""One run among many: what it is, how it is trained, and what may come of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dropkey.errors import DivergedError, DropKeyError
from dropkey.runs.config import RunConfig
from dropkey.runs.options import acting
from dropkey.runs.run_folder import RunFolder
from dropkey.runs.run_lock import locked
from dropkey.runs.training import check_processes, train
from dropkey.tasks.registry import named_task

__all__ = ["Job", "Outcome", "Stopped", "Watch", "outcome_of", "run_once"]

Watch = Callable[[Mapping[str, Any]], None]


class Stopped(Exception):  # noqa: N818  it is not an error
    """What a watch raises to end a run early; the message says why."""


Outcome = dict[str, Any] | DivergedError | Stopped  # the summary of a run, or why there is none


@dataclass(frozen=True)
class Job:
    """A run to train; it travels to other processes.

    Args:
        label: what it is a run of.
        config: its options, with its folder in ``output``.
        watch: called with each row of metrics.csv.
    """

    label: str
    config: RunConfig
    watch: Watch | None = None


def run_once(config: RunConfig, watch: Watch | None = None) -> dict[str, Any]:
    """Train one run in its folder, resuming it where it was interrupted, and return its summary."""
    folder = RunFolder(Path(config.output))
    check_processes(config)
    prepared = named_task(config.task).prepare(config, fresh=not folder.last_checkpoint.exists())
    folder.make()
    with locked(folder.root):
        folder.write_config(acting(config))
        return train(prepared, folder, resume=True, say=_silent, bar=False, watch=watch)


def outcome_of(job: Job) -> Outcome:
    """Train one run; one that diverges is no reason to give up the others, any other error is."""
    try:
        return run_once(job.config, job.watch)
    except (DivergedError, Stopped) as error:
        return error
    except DropKeyError as error:
        raise type(error)(f"{job.label}, seed {job.config.seed}: {error}") from None


def _silent(line: str) -> None:
    pass
