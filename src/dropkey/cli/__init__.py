"""The command line: ``dropkey SUBCOMMAND``, one file a subcommand.

A subcommand's module has ``run(arguments) -> exit code`` and is imported when it is called.
"""

import importlib
import sys
from collections.abc import Sequence

from dropkey.cli.exit_codes import DONE, INTERRUPTED, MENDABLE
from dropkey.errors import ArgumentError, DropKeyError, did_you_mean

__all__ = ["main"]

SUBCOMMANDS = {
    "train": "train a model with or without a regularizer on its attention",
    "compare": "train several arms with several seeds; a table with spread and a report page",
    "evaluate": "measure a trained model: accuracy, loss, calibration, occlusion, speed",
    "verify": "list the attention of a model and prove that DropKey acts on it",
    "bench": "measure time and memory of attention or of a training step on this machine",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code: see ``dropkey.cli.exit_codes``."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return DONE
    try:
        return _run(arguments[0], arguments[1:])
    except DropKeyError as error:
        print(f"dropkey: {_last_line(error)}", file=sys.stderr)
        return MENDABLE
    except KeyboardInterrupt:
        print("dropkey: interrupted", file=sys.stderr)
        return INTERRUPTED


def _run(name: str, arguments: Sequence[str]) -> int:
    if name == "--version":
        print(importlib.import_module("dropkey").__version__)
        return DONE
    if name not in SUBCOMMANDS:
        known = ", ".join(SUBCOMMANDS)
        raise ArgumentError(f"no subcommand {name!r}{did_you_mean(name, SUBCOMMANDS)}; known: {known}")
    try:
        code = importlib.import_module(f"dropkey.cli.{name}").run(arguments)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("dropkey"):
            raise
        extra = {"transformers": "transformers", "faster_coco_eval": "detection"}.get(error.name, "train")
        raise DropKeyError(f"{name} needs the package {error.name}: pip install 'dropkey[{extra}]'") from None
    assert isinstance(code, int)
    return code


def _help() -> str:
    width = max(map(len, SUBCOMMANDS))
    lines = [f"  {name.ljust(width)}  {what}" for name, what in SUBCOMMANDS.items()]
    return "\n".join(
        ["usage: dropkey SUBCOMMAND [options]", "", *lines, "", "dropkey SUBCOMMAND --help lists options."]
    )


def _last_line(error: Exception) -> str:
    """The message alone: an error from a data-loading process carries that process's traceback above it."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1].removeprefix(f"{type(error).__module__}.{type(error).__name__}: ")
