"""``dropkey compare``."""

import dataclasses
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropkey.cli.exit_codes import DONE, INTERRUPTED
from dropkey.cli.options import Given, Parser
from dropkey.cli.task_option import add_task_options, task_from
from dropkey.errors import ArgumentError, RunError
from dropkey.experiments.launch_options import LaunchOptions, launcher_of
from dropkey.runs.numbers import PositiveInt
from dropkey.runs.options import flag, idle_because, option, refuse_idle
from dropkey.tasks.registry import DEFAULT_TASK

if TYPE_CHECKING:
    from dropkey.experiments.comparison import Arm
    from dropkey.tasks.task import Task

__all__ = ["CompareOptions", "run"]

_DESCRIPTION = (
    "Train several arms with several seeds; end with a table and an HTML page. The options of dropkey train hold for "
    "all arms; without any, it trains on few digits (20 a class), where regularizers can differ. Run again, it resumes."
)
_OF_ONE_RUN = ("seed", "output")
# Without any option of training: few digits, where a ViT overfits and regularizers differ (docs/results.md).
_FEW_DIGITS = {
    "train_per_class": 20,
    "val_share": 0.7,
    "epochs": 60,
    "evaluate_every": 20,
    "batch_size": 50,
    "lr": 3e-3,
    "drop_ratio": 0.5,
}
_SEEDS_OF_FEW = 8  # with the first five alone, chance speaks for an arm that the next five do not: docs/results.md
_JOBS_OF_FEW = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareOptions(LaunchOptions):
    """Options of ``dropkey compare`` beside those of ``dropkey train``."""

    arms: tuple[str, ...] = option(
        ("none", "dropout", "dropkey"),
        "one arm each: REGULARIZER[:option=value...], as in dropkey:drop-ratio=0.3:pattern=block, or options alone, as "
        "in re-attention=all, to vary the arm of --regularizer",
        group="comparison",
        takes="ARM",
        several=tuple,
    )
    seeds: int = option(
        3,
        "runs per arm (seeds 0, 1, ...)",
        group="comparison",
        kind=PositiveInt,
        shown=f"3; {_SEEDS_OF_FEW} without an option of training",
    )
    output: str = option("", "folder of the comparison", group="comparison", takes="DIR", shown="runs/compare-DATA")


def run(arguments: Sequence[str]) -> int:
    """Train what is not finished, print the table and write the page."""
    task = task_from(arguments)
    given = _parser(task, arguments).read(arguments)
    options = CompareOptions(**given.of(CompareOptions))
    refuse_idle(options, [name for name in given.of(CompareOptions) if name in given.asked])
    shared = {name: value for name, value in given.of(task.config_class).items() if name not in _OF_ONE_RUN}
    alone = not shared and task.name == DEFAULT_TASK
    shared = dict(_FEW_DIGITS) if alone else shared
    seeds = _SEEDS_OF_FEW if alone and "seeds" not in given.values else options.seeds
    arms = [_arm(text, task, shared) for text in options.arms]
    _refuse_idle(arms, [name for name in shared if name in given.asked])
    if alone:
        print(f"no option of training, so on few digits: {_in_words(_FEW_DIGITS)}", flush=True)

    from dropkey.experiments.comparison import Comparison
    from dropkey.experiments.comparison_files import write_comparison
    from dropkey.experiments.comparison_table import arm_rows, as_text
    from dropkey.experiments.comparison_words import verdict
    from dropkey.runs.interruption import Interrupted
    from dropkey.runs.run_folder import write_atomically
    from dropkey.tasks.loading import load_run

    root = Path(options.output or f"runs/compare-{arms[0].config.data}")
    comparison = Comparison(root, task, arms, range(seeds))
    if alone and not options.cluster and "jobs" not in given.values:
        options = dataclasses.replace(options, jobs=min(_JOBS_OF_FEW, os.cpu_count() or 1))  # one thread each
    launcher = launcher_of(options)
    print(f"{_count(len(arms), 'arm')} x {_count(seeds, 'seed')}, {launcher}; folder {root}", flush=True)
    try:
        results = comparison.run(launcher, _say)
    except Interrupted:
        print("dropkey: interrupted; the same command resumes where this stopped", file=sys.stderr)
        return INTERRUPTED
    failed = "; ".join(f"the arm {label!r} diverged: {error}" for label, error in comparison.diverged.items())
    if not results:
        raise RunError(failed)
    rows = arm_rows(results, task.measures)
    page = write_comparison(root, results, task.measures, command=shlex.join(["dropkey", "compare", *arguments]))
    print(f"\n{as_text(rows, task.measures)}\n\n{verdict(rows, task.measures[0])}")
    print(f"page: {page}, with table.csv, table.tex and figure.svg beside it")
    if task.has_examples and not failed:
        examples = task.examples({arm.label: load_run(comparison.folder(arm.label, 0)) for arm in arms})
        write_atomically(root / "examples.html", examples.encode())
        print(f"examples: {root / 'examples.html'}, of the arms with seed 0")
    if failed:
        raise RunError(f"{failed}; the table and the page are of the other arms")
    return DONE


def _parser(task: "Task[Any, Any]", arguments: Sequence[str]) -> Parser:
    parser = Parser("dropkey compare", _DESCRIPTION)
    parser.add_options(CompareOptions)
    add_task_options(parser, task, arguments, without=_OF_ONE_RUN)
    return parser


def _arm(text: str, task: "Task[Any, Any]", shared: Mapping[str, Any]) -> "Arm":
    """Read ``dropkey:drop-ratio=0.3``: a regularizer, then options of ``dropkey train``."""
    from dropkey.experiments.comparison import Arm

    name, *parts = text.split(":")
    words = ["--regularizer", name] if "=" not in name else []
    for part in parts if words else [name, *parts]:
        key, sign, value = part.partition("=")
        if not sign or key in _OF_ONE_RUN:
            raise ArgumentError(f"the arm {text!r} has {part!r} where an option=value of dropkey train is expected")
        words += [f"--{key}", value]
    parser = Parser("dropkey compare --arms", _DESCRIPTION)
    parser.add_options(task.config_class, without=("task", *_OF_ONE_RUN))
    try:
        own: Given = parser.read(words)
        return Arm(text, task.resolve({**shared, **own.values}, own.asked), frozenset(own.values))
    except ArgumentError as error:
        raise ArgumentError(f"the arm {text!r}: {error}") from None


def _refuse_idle(arms: Sequence["Arm"], names: Sequence[str]) -> None:
    """Raise an ArgumentError for the first option, given for all arms, that acts in none."""
    for name in names:
        heirs = [arm for arm in arms if name not in arm.own]
        if not heirs:
            raise ArgumentError(f"{flag(name)} acts in no arm, since each has its own: leave it out, or change --arms")
        reasons = [idle_because(arm.config, name) for arm in heirs]
        if all(reasons):
            raise ArgumentError(f"{flag(name)} acts only with {reasons[0]}, which no arm has: leave it out")


def _in_words(values: Mapping[str, Any]) -> str:
    return " ".join(f"{flag(name)} {value:g}" for name, value in values.items())


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _say(line: str) -> None:
    print(line, flush=True)
