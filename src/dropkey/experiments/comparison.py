"""Arms x seeds: train every pair once, whatever interrupts it, and collect what came out."""

import contextlib
import csv
import dataclasses
import multiprocessing
import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import yaml

from dropkey.errors import ArgumentError, RunError
from dropkey.tasks.config import TrainConfig
from dropkey.tasks.interruption import Interrupted
from dropkey.tasks.run_folder import RunFolder, write_atomically
from dropkey.tasks.training import check_processes, prepare, train

__all__ = ["Arm", "Comparison", "Result", "run_once"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class Arm:
    """One way to train: a label and its options, the seed left open."""

    label: str
    config: TrainConfig


@dataclass(frozen=True)
class Result:
    """One finished run."""

    label: str
    seed: int
    summary: Mapping[str, Any]
    rows: Sequence[Mapping[str, float]]  # of metrics.csv
    config: TrainConfig


class Comparison:
    """The runs of all arms and seeds below one folder.

    Args:
        root: the folder; runs that are finished there are kept, those that were interrupted go on.
        arms: what is compared; the first is what the others are compared with.
        seeds: one run of every arm each.

    Raises:
        ArgumentError: two arms of the same name, or no seed.
        RunError: the folder holds an arm of the same name with other options.
    """

    def __init__(self, root: Path, arms: Sequence[Arm], seeds: Sequence[int]) -> None:
        labels = [arm.label for arm in arms]
        if len({_slug(label) for label in labels}) < len(labels):
            raise ArgumentError(f"two of the arms {', '.join(map(repr, labels))} have the same name")
        if not arms or not seeds or len(set(seeds)) < len(seeds):
            raise ArgumentError("a comparison needs one arm or more, and seeds that differ")
        self.root = root
        self.arms = list(arms)
        self.seeds = list(seeds)
        self._file = root / "comparison.yaml"
        self._check_same_arms()

    def folder(self, label: str, seed: int) -> RunFolder:
        """Return the run folder of an arm and a seed."""
        return RunFolder(self.root / _slug(label) / f"seed-{seed}")

    def run(self, jobs: int = 1, say: Say = print) -> list[Result]:
        """Train what is not finished, ``jobs`` at a time, and return all results in the order of arms and seeds.

        Raises:
            Interrupted: the same comparison, run again, goes on.
        """
        with _passing_on_sigterm():
            try:
                return self._run(jobs, say)
            except KeyboardInterrupt:
                raise Interrupted from None

    def _run(self, jobs: int, say: Say) -> list[Result]:
        self._write()
        pairs = [(arm, seed) for seed in self.seeds for arm in self.arms]
        todo = [(arm, seed) for arm, seed in pairs if not self.folder(arm.label, seed).summary_file.exists()]
        if len(todo) < len(pairs):
            say(f"{len(pairs) - len(todo)} of {len(pairs)} runs are finished already")
        tasks = [
            (arm.label, seed, self._config(arm, seed, jobs), self.folder(arm.label, seed).root) for arm, seed in todo
        ]
        for count, (label, seed, summary) in enumerate(_run_all(tasks, jobs), len(pairs) - len(todo) + 1):
            accuracy, seconds = summary["final_val_accuracy"], summary["train_seconds"]
            say(f"{count:>3}/{len(pairs)}  {label}, seed {seed}: validation accuracy {accuracy:.4f}, {seconds:.1f} s")
        return [self._result(arm.label, seed) for arm in self.arms for seed in self.seeds]

    def _config(self, arm: Arm, seed: int, jobs: int) -> TrainConfig:
        threads = arm.config.threads or (max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None)
        return dataclasses.replace(arm.config, seed=seed, threads=threads)

    def _result(self, label: str, seed: int) -> Result:
        folder = self.folder(label, seed)
        with folder.metrics_file.open() as file:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        return Result(label, seed, folder.read_summary(), rows, folder.read_config())

    def _options(self) -> dict[str, dict[str, Any]]:
        return {arm.label: _options_of(arm.config) for arm in self.arms}

    def _check_same_arms(self) -> None:
        if not self._file.exists():
            return
        try:
            before = yaml.safe_load(self._file.read_text())["arms"]
            items = dict(before).items()
        except (yaml.YAMLError, TypeError, KeyError, ValueError):
            raise RunError(f"cannot read {self._file}: delete the folder, or choose another --output") from None
        now = self._options()
        for label, options in items:
            changed = [name for name in now.get(label, {}) if now[label][name] != options.get(name)]
            if changed:
                raise RunError(
                    f"{self.root} holds the arm {label!r} with {changed[0]} {options.get(changed[0])}, not "
                    f"{now[label][changed[0]]}: choose another --output"
                )

    def _write(self) -> None:
        content = yaml.safe_dump({"arms": self._options(), "seeds": self.seeds}, sort_keys=False)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the folder {self.root}: {error.strerror}") from None
        write_atomically(self._file, content.encode())


def run_once(config: TrainConfig, root: Path) -> dict[str, Any]:
    """Train one run in its folder, going on where it was interrupted, and return its summary."""
    folder = RunFolder(root)
    check_processes(config)
    prepared = prepare(config)
    folder.make()
    folder.write_config(dataclasses.replace(prepared.config, output=str(root)))
    return train(prepared, folder, resume=True, say=_silent)


Task = tuple[str, int, TrainConfig, Path]


def _run_all(tasks: Sequence[Task], jobs: int) -> Iterator[tuple[str, int, dict[str, Any]]]:
    if jobs == 1:
        for label, seed, config, root in tasks:
            yield label, seed, run_once(config, root)
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(jobs, context, _obey, (stop,)) as pool:
        try:
            with _holding_back(*_SIGNALS):  # the processes that start here hold them back until they have a run
                futures: dict[Future[dict[str, Any]], tuple[str, int]] = {
                    pool.submit(_run_in_pool, config, root): (label, seed) for label, seed, config, root in tasks
                }
            for future in as_completed(futures):
                yield *futures[future], future.result()
        except BrokenProcessPool:
            stop.set()
            _kill_what_stays()
            raise Interrupted from None
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE_SECONDS = 30.0
_stop: Event | None = None  # of a process of the pool: set when it shall begin no other run


def _obey(stop: Event) -> None:
    global _stop
    _stop = stop


def _run_in_pool(config: TrainConfig, root: Path) -> dict[str, Any]:
    """Run once; signals act here, and wait while this process starts or has no run."""
    for number in _SIGNALS:
        signal.signal(number, signal.default_int_handler)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        if _stop is not None and _stop.is_set():
            raise Interrupted
        return run_once(config, root)
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


def _options_of(config: TrainConfig) -> dict[str, Any]:
    """What an arm computes: not where, and not its seed."""
    values = dataclasses.asdict(config)
    for name in ("seed", "output", "workers", "threads", "data_dir", "save_seconds"):
        values.pop(name)
    return values


def _slug(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.=]+", "-", label).strip("-.") or "arm"


def _silent(line: str) -> None:
    pass
