"""``dropkey train``."""

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropkey.cli.exit_codes import DONE, INTERRUPTED
from dropkey.cli.options import Parser, add_fields, values_of
from dropkey.errors import ArgumentError, RunError
from dropkey.tasks.config import TrainConfig

if TYPE_CHECKING:
    from dropkey.tasks.run_folder import RunFolder

__all__ = ["run"]

_DESCRIPTION = (
    "Train a model with or without a regularizer on its attention. No option is needed: what is null below comes from "
    "the recipe of the data, or from one for fine-tuning; config.yaml in the run folder holds what was used."
)
# What may change when a run is resumed: where it runs, not what it computes.
_FREE_ON_RESUME = ("output", "workers", "data_dir", "save_seconds")


def run(arguments: Sequence[str]) -> int:
    """Train, and print the table of sites, a line an epoch and a summary."""
    options = _parser().read(arguments)
    is_main = _is_main_process()
    config, folder = _resumed(arguments, options) if options["resume"] else _fresh(options, is_main)
    if options["resume"] and folder is not None and folder.summary_file.exists():
        print(closing(folder.read_summary(), folder.root))
        return DONE

    from dropkey.tasks.interruption import Interrupted
    from dropkey.tasks.run_folder import fresh_run_folder
    from dropkey.tasks.training import check_processes, prepare, train

    check_processes(config)
    prepared = prepare(config)
    folder = folder or fresh_run_folder(prepared.config)
    if is_main:
        folder.make()
        folder.write_config(dataclasses.replace(prepared.config, output=str(folder.root)))
        print("\n".join([*prepared.notes, opening(prepared.handle, prepared.config, folder.root)]), flush=True)
    try:
        summary = train(prepared, folder, resume=options["resume"], say=_say)
    except Interrupted:
        if is_main:
            print(f"dropkey: interrupted; to go on: dropkey train --resume --output {folder.root}", file=sys.stderr)
        return INTERRUPTED
    if is_main:
        print(closing(summary, folder.root))
    return DONE


def opening(handle: Any, config: TrainConfig, root: Path) -> str:
    """Return what is said before training: the sites, and where the run lies."""
    table = str(handle) if handle is not None else "No regularizer on attention."
    return f"{table}\n\n{config.model} on {config.data}, {config.epochs} epochs; run folder {root}"


def closing(summary: Mapping[str, Any], root: Path) -> str:
    """Return what is said after training."""
    return (
        f"validation accuracy {summary['final_val_accuracy']:.4f} (best {summary['best_val_accuracy']:.4f} in epoch "
        f"{summary['best_epoch'] + 1}), clean training accuracy {summary['final_train_accuracy']:.4f}, "
        f"gap {summary['generalization_gap']:+.4f}\n"
        f"{summary['epochs']} epochs in {summary['train_seconds']:.1f} s, {summary['images_per_second']:.0f} images/s; "
        f"curves: {root / 'curves.png'}"
    )


def _parser(defaults: Mapping[str, Any] | None = None) -> Parser:
    parser = Parser("dropkey train", _DESCRIPTION)
    parser.add_argument("--resume", action="store_true", help="go on with the run in --output where it stopped")
    add_fields(parser, TrainConfig, defaults)
    return parser


def _config(options: Mapping[str, Any]) -> TrainConfig:
    return TrainConfig(**values_of(TrainConfig, options))


def _fresh(options: Mapping[str, Any], is_main: bool) -> "tuple[TrainConfig, RunFolder | None]":
    from dropkey.tasks.run_folder import RunFolder

    config = _config(options)
    if config.output is None:
        return config, None
    folder = RunFolder(Path(config.output))
    if folder.holds_a_run and is_main:
        raise RunError(f"{folder.root} holds a run already: go on with it by --resume, or choose another --output")
    return config, folder


def _resumed(arguments: Sequence[str], options: Mapping[str, Any]) -> "tuple[TrainConfig, RunFolder]":
    """Options that are not given are those of the run; those that are given must be the same."""
    from dropkey.tasks.run_folder import RunFolder

    if options["output"] is None:
        raise ArgumentError("--resume needs --output RUN, the folder of the run to go on with")
    folder = RunFolder(Path(options["output"]))
    if not folder.holds_a_run:
        print(f"{folder.root} holds no run yet: starting from the beginning")
        return _config(options), folder
    saved = folder.read_config()
    config = _config(_parser(dataclasses.asdict(saved)).read(arguments))
    for field in dataclasses.fields(TrainConfig):
        before, now = getattr(saved, field.name), getattr(config, field.name)
        if before != now and field.name not in _FREE_ON_RESUME:
            raise ArgumentError(
                f"--{field.name.replace('_', '-')} {now} on --resume, but the run in {folder.root} has {before}: leave "
                "the option out, or start a new run"
            )
    return config, folder


def _is_main_process() -> bool:
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0


def _say(line: str) -> None:
    print(line, flush=True)
