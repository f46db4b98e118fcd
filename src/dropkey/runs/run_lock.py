"""One process at a time in a run folder."""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from dropkey.errors import RunError

__all__ = ["locked"]

_PATIENCE_S = 8.0  # processes that read images outlive one that was killed by some seconds
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)  # some network file systems
_held: set[int] = set()


@contextlib.contextmanager
def locked(folder: Path, patience_s: float = _PATIENCE_S) -> Iterator[None]:
    """Hold a folder: no other process of this machine can meanwhile. A process that dies lets go of it.

    Args:
        folder: that is there already; nothing is written into it.
        patience_s: how long to wait for another process to end.

    Raises:
        RunError: another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    _held.add(descriptor)
    try:
        _take(descriptor, folder, time.monotonic() + patience_s)
        yield
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def _take(descriptor: int, folder: Path, until: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise RunError(
                    f"another process is at work in {folder}: wait for it, end it, or choose another --output"
                ) from None
            time.sleep(0.1)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return
            raise


def _let_go() -> None:
    """In a process that was forked: the folder is its parent's."""
    for descriptor in list(_held):
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
