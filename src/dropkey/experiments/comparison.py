"""Arms x seeds: train every pair once, whatever interrupts it, and collect what came out."""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dropkey.errors import ArgumentError, RunError
from dropkey.experiments.job import Job, Outcome
from dropkey.experiments.launcher import Launcher
from dropkey.experiments.progress import RunsProgress
from dropkey.runs.config import RunConfig
from dropkey.runs.interruption import Interrupted
from dropkey.runs.options import acting
from dropkey.runs.run_folder import RunFolder, write_atomically
from dropkey.tasks.registry import named_task
from dropkey.tasks.task import Task

__all__ = ["Arm", "Comparison", "Result"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class Arm:
    """One way to train: a label and its options, the seed left open.

    Args:
        label: what the user called it.
        config: all its options.
        own: names of those that it has by itself, and not from the command as a whole.
    """

    label: str
    config: RunConfig
    own: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Result:
    """One finished run."""

    label: str
    seed: int
    summary: Mapping[str, Any]
    rows: Sequence[Mapping[str, float]]  # of metrics.csv
    config: RunConfig


class Comparison:
    """The runs of all arms and seeds below one folder.

    Args:
        root: the folder; runs that are finished there are kept, those that were interrupted are resumed.
        task: what all arms train.
        arms: what is compared; the first is what the others are compared with.
        seeds: one run of every arm for each.

    Raises:
        ArgumentError: two arms of the same name, or no seed.
        RunError: the folder holds an arm of the same name with other options.
    """

    def __init__(self, root: Path, task: Task[Any, Any], arms: Sequence[Arm], seeds: Sequence[int]) -> None:
        labels = [arm.label for arm in arms]
        if len({_slug(label) for label in labels}) < len(labels):
            raise ArgumentError(f"two of the arms {', '.join(map(repr, labels))} have the same name")
        if not arms or not seeds or len(set(seeds)) < len(seeds):
            raise ArgumentError("a comparison needs one arm or more, and seeds that differ")
        self.root = root
        self.task = task
        self.arms = list(arms)
        self.seeds = list(seeds)
        self.diverged: dict[str, Exception] = {}  # by the label of the arm, the first of each
        self._file = root / "comparison.yaml"
        self._before = self._arms_before()
        self._check_same_arms()

    def folder(self, label: str, seed: int) -> RunFolder:
        """Return the run folder of an arm and a seed."""
        return RunFolder(self.root / _slug(label) / f"seed-{seed}")

    def run(self, launcher: Launcher, say: Say = print) -> list[Result]:
        """Train what is not finished, and return all results in the order of arms and seeds.

        Args:
            launcher: runs the runs.
            say: called with a line for every run that has ended.

        Raises:
            Interrupted: the same comparison, run again, resumes.
        """
        try:
            return self._run(launcher, say)
        except KeyboardInterrupt:
            raise Interrupted from None

    def _run(self, launcher: Launcher, say: Say) -> list[Result]:
        self._write()
        pairs = [(arm, seed) for seed in self.seeds for arm in self.arms]
        todo = [(arm, seed) for arm, seed in pairs if not self.folder(arm.label, seed).summary_file.exists()]
        if len(todo) < len(pairs):
            say(f"{len(pairs) - len(todo)} of {len(pairs)} runs are finished already")
        jobs = [Job(arm.label, self._config(arm, seed, launcher.threads)) for arm, seed in todo]
        self._check_same_data([pair for pair in pairs if pair not in todo])
        finished = len(pairs) - len(todo)
        progress = RunsProgress([(RunFolder(Path(job.config.output)), job.config.epochs) for job in jobs], finished)
        with progress, contextlib.closing(launcher.run(jobs)) as ended:
            for count, (job, outcome) in enumerate(ended, finished + 1):
                progress.finish(RunFolder(Path(job.config.output)))
                say(f"{count:>3}/{len(pairs)}  {job.label}, seed {job.config.seed}: {self._in_words(outcome)}")
                if isinstance(outcome, Exception):
                    self.diverged.setdefault(job.label, outcome)
        whole = [arm for arm in self.arms if arm.label not in self.diverged]
        self._check_same_data([(arm, seed) for arm in whole for seed in self.seeds])
        return [self.result(arm.label, seed) for arm in whole for seed in self.seeds]

    def _in_words(self, outcome: Outcome) -> str:
        if isinstance(outcome, Exception):
            return f"failed, {outcome}"
        headline = self.task.measures[0]
        value, seconds = headline.text(outcome[f"final_val_{headline.name}"]), outcome["train_seconds"]
        return f"validation {headline.words} {value}, {seconds:.1f} s"

    def _config(self, arm: Arm, seed: int, threads: int) -> RunConfig:
        output = str(self.folder(arm.label, seed).root)
        return dataclasses.replace(arm.config, seed=seed, threads=arm.config.threads or threads, output=output)

    def result(self, label: str, seed: int) -> Result:
        """Return what a finished run of an arm and a seed has shown."""
        folder = self.folder(label, seed)
        config = self.task.read(folder.read_config(), str(folder.config_file))
        return Result(label, seed, folder.read_summary(), folder.read_metrics(), config)

    def _check_same_data(self, pairs: Sequence[tuple[Arm, int]]) -> None:
        """Raise a RunError if runs that are finished were trained on other data than each other."""
        places: dict[str, Path] = {}
        for arm, seed in pairs:
            folder = self.folder(arm.label, seed)
            places.setdefault(folder.read_summary().get("data_fingerprint", ""), folder.root)
        places.pop("", None)
        if len(places) > 1:
            one, other = list(places.values())[:2]
            raise RunError(
                f"{one} and {other} were trained on different data, so they cannot be compared: delete one of them, or "
                "choose another --output"
            )

    def _options(self) -> dict[str, dict[str, Any]]:
        return {arm.label: _options_of(arm.config) for arm in self.arms}

    def _arms_before(self) -> dict[str, dict[str, Any]]:
        """Return the options of the arms that the folder holds already."""
        if not self._file.exists():
            return {}
        try:
            saved = dict(yaml.safe_load(self._file.read_text())["arms"])
            return {label: _options_of(self._read(options)) for label, options in saved.items()}
        except (yaml.YAMLError, TypeError, KeyError, ValueError, AttributeError):
            raise RunError(f"cannot read {self._file}: delete the folder, or choose another --output") from None

    def _check_same_arms(self) -> None:
        now = self._options()
        for label in [label for label in self._before if label in now]:
            one, other = self._before[label], now[label]
            changed = [name for name in {**other, **one} if one.get(name) != other.get(name)]
            if changed:
                raise RunError(
                    f"{self.root} holds the arm {label!r} with {changed[0]} {one.get(changed[0], 'unset')}, not "
                    f"{other.get(changed[0], 'unset')}: choose another --output"
                )

    def _read(self, saved: Mapping[str, Any]) -> RunConfig:
        config = named_task(saved.get("task") or self.task.name).read(saved)
        assert isinstance(config, RunConfig)
        return config

    def _write(self) -> None:
        arms = {**self._before, **self._options()}  # those of other comparisons in this folder stay
        content = yaml.safe_dump({"arms": arms, "seeds": self.seeds}, sort_keys=False)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the folder {self.root}: {error.strerror}") from None
        write_atomically(self._file, content.encode())


def _options_of(config: RunConfig) -> dict[str, Any]:
    """What an arm computes: not where, and not its seed."""
    free = ("seed", "output", "workers", "threads", "data_dir", "save_seconds")
    return {name: value for name, value in acting(config).items() if name not in free}


def _slug(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.=]+", "-", label).strip("-.") or "arm"
