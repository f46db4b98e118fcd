"""Runs in several processes of this machine, that save and end when they are asked to."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from dropkey.experiments.job import Job, Outcome, outcome_of
from dropkey.experiments.launcher import Launcher
from dropkey.runs.interruption import Interrupted

__all__ = ["Processes"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE_SECONDS = 30.0
_stop: Event | None = None  # of a process of the pool: set when it shall begin no other run
_busy = threading.Lock()  # held while a process of the pool has a run


class Processes(Launcher):
    """Runs jobs in processes of this machine.

    Args:
        count: how many at a time, 2 or more.
    """

    def __init__(self, count: int) -> None:
        self.room = count
        self.threads = max(1, (os.cpu_count() or 1) // count)

    def __str__(self) -> str:
        return f"{self.room} at a time"

    def run(self, jobs: Iterable[Job]) -> Generator[tuple[Job, Outcome]]:
        context = multiprocessing.get_context("spawn")
        stop = context.Event()
        jobs = iter(jobs)
        running: dict[Future[Outcome], Job] = {}
        with _passing_on_sigterm(), ProcessPoolExecutor(self.room, context, _obey, (stop,)) as pool:
            try:
                while True:
                    for job in islice(jobs, self.room - len(running)):
                        with _holding_back(*_SIGNALS):  # a process that starts here holds them back until it has a run
                            running[pool.submit(_run_in_pool, job)] = job
                    if not running:
                        return
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        yield running.pop(future), future.result()
            except BrokenProcessPool:
                stop.set()
                _kill_what_stays()
                raise Interrupted from None
            finally:
                stop.set()
                pool.shutdown(wait=True, cancel_futures=True)


def _obey(stop: Event) -> None:
    global _stop
    _stop = stop
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  runs do not speak into each other
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Save and end when the command was killed: else its runs would go on, and hold their folders."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    with _busy:
        os._exit(1)


def _run_in_pool(job: Job) -> Outcome:
    """Run once; signals act here, and wait while this process starts or has no run."""
    for number in _SIGNALS:
        signal.signal(number, signal.default_int_handler)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        if _stop is not None and _stop.is_set():
            raise Interrupted
        with _busy:
            return outcome_of(job)
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _kill_what_stays() -> None:
    """End the processes beside one that has died: those without a run hold signals back."""
    for process in multiprocessing.active_children():
        process.join(_GRACE_SECONDS)
        process.kill()


@contextlib.contextmanager
def _holding_back(*numbers: signal.Signals) -> Iterator[None]:
    """Let signals wait, here and in the processes that are started."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _passing_on_sigterm:  # noqa: N801  a context manager, named like one
    """Sends SIGTERM on to the processes that train, as Ctrl-C; a true Ctrl-C reaches them by itself."""

    def __enter__(self) -> None:
        self._previous = signal.signal(signal.SIGTERM, self._pass_on)

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGTERM, self._previous)

    def _pass_on(self, number: int, frame: Any) -> None:
        for process in multiprocessing.active_children():
            assert process.pid is not None
            os.kill(process.pid, signal.SIGINT)
        raise KeyboardInterrupt
