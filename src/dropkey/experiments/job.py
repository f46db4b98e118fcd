"""One run among many: what it is, how it is trained, and what may come of it."""

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

__all__ = ["Job", "Outcome", "outcome_of", "run_once"]

Outcome = dict[str, Any] | DivergedError  # the summary of a run, or why there is none


@dataclass(frozen=True)
class Job:
    """A run to train; it travels to other processes.

    Args:
        label: what it is a run of.
        config: its options, with its folder in ``output``.
    """

    label: str
    config: RunConfig


def run_once(config: RunConfig) -> dict[str, Any]:
    """Train one run in its folder, resuming it where it was interrupted, and return its summary."""
    folder = RunFolder(Path(config.output))
    check_processes(config)
    prepared = named_task(config.task).prepare(config, fresh=not folder.last_checkpoint.exists())
    folder.make()
    with locked(folder.root):
        folder.write_config(acting(config))
        return train(prepared, folder, resume=True, say=_silent, bar=False)


def outcome_of(job: Job) -> Outcome:
    """Train one run; one that diverges is no reason to give up the others, any other error is."""
    try:
        return run_once(job.config)
    except DivergedError as error:
        return error
    except DropKeyError as error:
        raise type(error)(f"{job.label}, seed {job.config.seed}: {error}") from None


def _silent(line: str) -> None:
    pass
