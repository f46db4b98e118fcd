"""Runs on a Ray cluster: where there is room, and elsewhere from their checkpoints when a node is lost.

Ray is imported here alone.
"""

import contextlib
import os
import signal
import socket
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError, TaskCancelledError

import dropkey
from dropkey.errors import DivergedError, DropKeyError, RunError
from dropkey.experiments.job import Job, Outcome, outcome_of
from dropkey.experiments.launcher import Launcher
from dropkey.runs.interruption import Interrupted
from dropkey.runs.run_folder import RunFolder

__all__ = ["RayCluster"]

_LOSSES = 10  # of workers that a run survives: one that kills them all is not tried forever
_GRACE_SECONDS = 60.0
_LOOK_SECONDS = 5.0  # from one look at the size of the cluster to the next


class RayCluster(Launcher):
    """Runs jobs on a cluster that is there already.

    The run folders must lie on storage that all nodes share: a run whose node is lost goes on elsewhere from what it
    has saved there.

    Args:
        address: of the cluster, or "auto" for the one that was started on this machine or that RAY_ADDRESS names.
        cpus: CPUs of each run, which are its threads.
        gpus: share of a GPU of each run; a cluster without GPUs has none to give.

    Raises:
        RunError: no cluster there, or none of its nodes has as much.
    """

    def __init__(self, address: str, cpus: int, gpus: float) -> None:
        _connect(address)
        self.threads = cpus
        self.gpus = gpus if any(node["Resources"].get("GPU") for node in _alive()) else 0.0
        if not self.room:
            raise RunError(
                f"no node of the cluster has {cpus} CPUs and {self.gpus:g} GPUs for a run: fewer --cpus-per-run or "
                "--gpus-per-run"
            )

    @property
    def room(self) -> int:  # type: ignore[override]  # nodes come and go
        """How many runs have room at the same time."""
        return sum(self._room_on(node["Resources"]) for node in _alive())

    def _room_on(self, resources: Mapping[str, float]) -> int:
        by_cpus = int(resources.get("CPU", 0.0) / self.threads)
        return min(by_cpus, int(resources.get("GPU", 0.0) / self.gpus + 1e-9)) if self.gpus else by_cpus

    def __str__(self) -> str:
        nodes = len(_alive())
        each = f"{self.threads} CPU{'s' if self.threads > 1 else ''}"
        each += f" and {self.gpus:g} GPUs" if self.gpus else ""
        return (
            f"{self.room} at a time on a cluster of {nodes} node{'s' if nodes > 1 else ''}, "
            f"{each} each{'' if self.gpus else '; no GPU is used'}"
        )

    def run(self, jobs: Iterable[Job]) -> Generator[tuple[Job, Outcome]]:
        task = ray.remote(
            num_cpus=self.threads, num_gpus=self.gpus, max_retries=_LOSSES, retry_exceptions=[Interrupted]
        )(_run_on_node)
        place, jobs = Path.cwd(), iter(jobs)
        running: dict[Any, Job] = {}
        try:
            while True:
                for job in islice(jobs, max(0, self.room + 1 - len(running))):  # one waits
                    RunFolder(Path(job.config.output)).make()
                    running[task.remote(job, place, dropkey.__version__)] = job
                if not running:
                    return
                for reference in ray.wait(list(running), timeout=_LOOK_SECONDS)[0]:
                    job = running.pop(reference)
                    yield job, _fetched(reference, job)
        finally:
            _cancel(list(running))


def _run_on_node(job: Job, place: Path, version: str) -> Outcome | DropKeyError:
    """Run once on a node; what a user can mend is returned, since Ray wraps what is raised."""
    node = socket.gethostname()
    if dropkey.__version__ != version:
        return RunError(f"the node {node} has dropkey {dropkey.__version__}, and this command is of {version}")
    try:
        os.chdir(place)  # what is relative is so to where the command was given
        seen = Path(job.config.output).is_dir()
    except OSError:
        seen = False
    if not seen:
        folder = Path(place, job.config.output)
        return RunError(f"the node {node} does not see {folder}: the folder must be on storage that all nodes share")
    try:
        return outcome_of(job)
    except DropKeyError as error:
        return error


def _fetched(reference: Any, job: Job) -> Outcome:
    try:
        outcome: Outcome | DropKeyError = ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, ModuleNotFoundError):
            raise RunError(f"a node of the cluster lacks a package: {error.cause}; install dropkey on all") from None
        raise
    except RayError as error:
        raise RunError(
            f"{job.label}, seed {job.config.seed}: lost its worker {_LOSSES + 1} times, often for want of memory "
            f"({type(error).__name__}); the same command resumes"
        ) from None
    if isinstance(outcome, DropKeyError) and not isinstance(outcome, DivergedError):
        raise outcome
    return outcome


def _cancel(references: list[Any]) -> None:
    """Ask runs to save and end, as Ctrl-C does."""
    if not references:
        return
    for reference in references:
        ray.cancel(reference, force=False)
    with contextlib.suppress(RayError, TaskCancelledError):
        ray.wait(references, num_returns=len(references), timeout=_GRACE_SECONDS)


def _connect(address: str) -> None:
    _check_reachable(address)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with _quiet():
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", ignore_reinit_error=True)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise _no_cluster(address, str(error).strip().partition("\n")[0].partition(". ")[0].rstrip(".")) from None
    finally:
        signal.signal(signal.SIGTERM, before)  # Ray takes it for itself


def _check_reachable(address: str) -> None:
    """Raise a RunError where nobody listens: Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not colon or not port.isdecimal():
        raise RunError(f"--cluster takes auto, or HOST:PORT as ray start --head prints it, got {address!r}")
    try:
        socket.create_connection((host, int(port)), _LOOK_SECONDS).close()
    except OSError as error:
        raise _no_cluster(address, error.strerror or str(error)) from None


def _no_cluster(address: str, why: str) -> RunError:
    return RunError(
        f"no Ray cluster answers at {address} ({why}): ray start --head starts one, and --cluster takes the address "
        "that it prints"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide Ray's notes on its own future."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]
