"""Library failures as errors that say how to fix them."""

import contextlib
from collections.abc import Iterator

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from dropkey.errors import DropKeyError, RunError, first_line

__all__ = ["is_out_of_memory", "mendable_failures"]

# What a library's message contains, and what to do about it.
_REMEDIES = {
    "shared memory": "the processes that read images have no room in shared memory: --workers 0, or a larger /dev/shm",
    "No space left on device": "no space is left: make room (df -h names the full disk), then --resume",
    "closed by peer": "another process of this run has ended: its own line says why",
    "reset by peer": "another process of this run has ended: its own line says why",
    "DataLoader worker": "a process that reads images was killed, often for want of memory: fewer --workers",
    "out of memory": "out of memory: a smaller --batch-size, with --accumulate for the same step",
    "can't allocate memory": "out of memory: a smaller --batch-size, with --accumulate for the same step",
}


@contextlib.contextmanager
def mendable_failures() -> Iterator[None]:
    """Turn the failures of torch, Lightning and the machine that a user can mend into RunError; pass on all others."""
    try:
        yield
    except DropKeyError:
        raise
    except (RuntimeError, OSError, MemoryError) as error:
        remedy = remedy_for(error)
        if remedy is None:
            raise
        raise RunError(remedy) from error
    except MisconfigurationException as error:
        raise RunError(f"this machine cannot run these options: {first_line(error)}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error of torch or Python is a want of memory."""
    return remedy_for(error) == _REMEDIES["out of memory"]


def remedy_for(error: BaseException) -> str | None:
    """Return what to do about an error, or None if that is not known."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return _REMEDIES["out of memory"]
    text = str(error)
    return next((remedy for sign, remedy in _REMEDIES.items() if sign in text), None)
