"""``dropkey train``."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropkey.cli.exit_codes import DONE, INTERRUPTED
from dropkey.cli.options import Given, Parser
from dropkey.cli.task_option import add_task_options, task_from
from dropkey.errors import ArgumentError, RunError

if TYPE_CHECKING:
    from dropkey.runs.config import RunConfig
    from dropkey.runs.measure import Measure
    from dropkey.runs.prepared import Prepared
    from dropkey.runs.run_folder import RunFolder
    from dropkey.tasks.task import Task

__all__ = ["run"]

_DESCRIPTION = (
    "Train a model with or without a regularizer on its attention. No option is needed: the defaults below are the "
    "recipe for the --data, --model and --weights given beside --help; the run folder holds what was used."
)
# What may change when a run is resumed: where it runs, not what it computes.
_FREE_ON_RESUME = ("output", "workers", "data_dir", "save_seconds")


def run(arguments: Sequence[str]) -> int:
    """Train, and print the table of sites, a line per epoch and a summary."""
    from dropkey.runs.options import acting
    from dropkey.runs.run_folder import RunFolder

    task = task_from(arguments)
    given = _parser(task, arguments).read(arguments)
    resume = bool(given.values.get("resume"))
    config = _resumed(task, given) if resume else task.resolve(given.of(task.config_class), given.asked)
    is_main = _is_main_process(config.devices)
    folder = RunFolder(Path(config.output))
    if is_main and not resume:
        _check_free(folder)
    if resume and folder.summary_file.exists():
        summary = folder.read_summary()
        print(f"the run in {folder.root} had ended: nothing is trained now")
        print(closing(summary, folder.root, task.measures[0]))
        return DONE

    from dropkey.runs.interruption import Interrupted
    from dropkey.runs.training import check_processes, train

    check_processes(config)
    prepared = task.prepare(config, fresh=not folder.last_checkpoint.exists())
    try:
        with _held(folder) if is_main else contextlib.nullcontext():
            if is_main:
                folder.write_config(acting(config))
                print("\n".join([*prepared.notes, opening(prepared)]), flush=True)
            summary = train(prepared, folder, resume=resume, say=_say)
    except Interrupted:
        if is_main:
            print(f"dropkey: interrupted; to resume: dropkey train --resume --output {folder.root}", file=sys.stderr)
        return INTERRUPTED
    if is_main:
        print(closing(summary, folder.root, task.measures[0]))
    return DONE


@contextlib.contextmanager
def _held(folder: "RunFolder") -> Iterator[None]:
    """Make a run folder, for this process alone."""
    from dropkey.runs.run_lock import locked

    folder.make()
    with locked(folder.root):
        yield


def opening(prepared: "Prepared") -> str:
    """Return what is said before training: the sites, the data, and where the run lies."""
    from dropkey.runs.training import num_processes

    config = prepared.config
    table = str(prepared.handle) if prepared.handle is not None else "No regularizer on attention."
    data = "\n".join(prepared.data.overview(num_processes(config)))
    epochs = "1 epoch" if config.epochs == 1 else f"{config.epochs} epochs"
    return f"{table}\n\n{data}\n\n{config.model} on {config.data}, {epochs}; run folder {config.output}"


def closing(summary: Mapping[str, Any], root: Path, headline: "Measure") -> str:
    """Return what is said after training."""
    final, best, train = (
        headline.text(summary[f"{key}_{headline.name}"]) for key in ("final_val", "best_val", "final_train")
    )
    epochs = "1 epoch" if summary["epochs"] == 1 else f"{summary['epochs']} epochs"
    return (
        f"validation {headline.words} {final} (best {best} in epoch {summary['best_epoch'] + 1}), clean training "
        f"{headline.words} {train}, gap {headline.text(summary['generalization_gap'], '+')}\n"
        f"{epochs} in {summary['train_seconds']:.1f} s; {summary['images_per_second']:.0f} images/s, evaluation left "
        f"out; curves: {root / 'curves.png'}"
    )


def _parser(task: "Task[Any, Any]", arguments: Sequence[str]) -> Parser:
    parser = Parser("dropkey train", _DESCRIPTION)
    parser.add_argument("--resume", action="store_true", help="resume the run in --output")
    add_task_options(parser, task, arguments)
    return parser


def _check_free(folder: "RunFolder") -> None:
    """Raise a RunError if a new run would write over something."""
    if folder.holds_a_run:
        raise RunError(f"{folder.root} already contains a run: continue it with --resume, or choose another --output")
    if (file := folder.foreign_file()) is not None:
        raise RunError(f"{file} is there already, and a run would write over it: choose another --output")


def _resumed(task: "Task[Any, Any]", given: Given) -> "RunConfig":
    """Options that are not given are those of the run; those that are given must be the same."""
    from dropkey.runs.options import flag, refuse_idle
    from dropkey.runs.run_folder import RunFolder
    from dropkey.tasks.registry import task_of

    values = given.of(task.config_class)
    if "output" not in values:
        raise ArgumentError("--resume needs --output RUN, the folder of the run to resume")
    folder = RunFolder(Path(values["output"]))
    if not folder.holds_a_run:
        if (file := folder.foreign_file()) is not None:
            raise RunError(
                f"{folder.root} holds {file.relative_to(folder.root)} of a run but not its config.yaml: put that back, "
                "or choose another --output"
            )
        print(f"{folder.root} holds no run yet: starting from the beginning")
        fresh: RunConfig = task.resolve(values, given.asked)
        return fresh
    options = folder.read_config()
    if (own := task_of(options)) is not task:
        raise ArgumentError(
            f"--task {task.name} on --resume, but the run in {folder.root} is of {own.name}: leave the option out, or "
            "start a new run"
        )
    saved: RunConfig = task.read(options, str(folder.config_file))
    for name, now in values.items():
        before = getattr(saved, name)
        if before != now and name not in _FREE_ON_RESUME:
            raise ArgumentError(
                f"{flag(name)} {now} on --resume, but the run in {folder.root} has {before}: leave the option out, or "
                "start a new run"
            )
    config = dataclasses.replace(saved, **{name: values[name] for name in _FREE_ON_RESUME if name in values})
    refuse_idle(config, [name for name in values if name in given.asked])
    return config


def _is_main_process(devices: int) -> bool:
    """Say whether this process is the one that writes and speaks; ranks that no launcher has set are forgotten."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["RANK"]) == 0
    for name in ("RANK", *(("WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK") if devices == 1 else ())):
        os.environ.pop(name, None)
    return os.environ.get("LOCAL_RANK", "0") == "0"  # Lightning sets it in the processes that it starts


def _say(line: str) -> None:
    print(line, flush=True)
