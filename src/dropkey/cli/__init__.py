"""The command line: ``dropkey SUBCOMMAND``, one file per subcommand.

A subcommand's module has ``run(arguments) -> exit code`` and is imported when it is called.
"""

import contextlib
import importlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

from dropkey.cli.exit_codes import DONE, INTERRUPTED, MENDABLE
from dropkey.cli.output import steady_output
from dropkey.errors import ArgumentError, DropKeyError, did_you_mean, first_line

__all__ = ["main"]

SUBCOMMANDS = {
    "train": "train a model with or without a regularizer on its attention",
    "compare": "train several arms with several seeds; a table with spread and a report page",
    "tune": "search ratio, schedule and pattern, and check the best against none on other seeds",
    "evaluate": "measure a trained model: accuracy, loss, calibration, occlusion, speed",
    "verify": "list the attention of a model and prove that DropKey acts on it",
    "audit": "list every dropout of a model: when it acts, at which measured rate, against what it says",
    "diagnose": "look at the attention of a model on images: measures, and a page to explore",
    "experiment": "run one of the papers' tables at a stated scale: tables with intervals, and a page",
    "bench": "measure time and memory of attention or of a training step on this machine",
}

# The extra that has a package, where it is not "train".
_EXTRAS = {"transformers": "transformers", "faster_coco_eval": "detection", "optuna": "tune", "ray": "cluster"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code: see ``dropkey.cli.exit_codes``."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    with steady_output(), _sigterm_as_ctrl_c():
        try:
            return _run(arguments[0] if arguments else "--help", arguments[1:])
        except (DropKeyError, OSError, MemoryError) as error:
            print(f"dropkey: {_in_one_line(error)}", file=sys.stderr)
            return MENDABLE
        except KeyboardInterrupt:
            print("dropkey: interrupted", file=sys.stderr)
            return INTERRUPTED


def _run(name: str, arguments: Sequence[str]) -> int:
    if any("\0" in word for word in (name, *arguments)):
        raise ArgumentError("a word of the command line has a null character in it")
    if name in ("-h", "--help"):
        print(_help())
        return DONE
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
        extra = _EXTRAS.get(error.name, "train")
        raise DropKeyError(f"{name} needs the package {error.name}: pip install 'dropkey[{extra}]'") from None
    assert isinstance(code, int)
    return code


def _help() -> str:
    width = max(map(len, SUBCOMMANDS))
    lines = [f"  {name.ljust(width)}  {what}" for name, what in SUBCOMMANDS.items()]
    return "\n".join(
        ["usage: dropkey SUBCOMMAND [options]", "", *lines, "", "dropkey SUBCOMMAND --help lists options."]
    )


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Let a request to end be what Ctrl-C is, wherever a command stands."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _in_one_line(error: BaseException) -> str:
    """What a user can mend, in one line: what this package says, and what the system says of files and memory."""
    if isinstance(error, DropKeyError):
        text = _last_line(error)
    elif isinstance(error, MemoryError):
        text = "out of memory: a smaller --batch-size or a smaller image"
    else:
        assert isinstance(error, OSError)
        place = "" if error.filename is None else f"{error.filename}: "
        text = f"{place}{error.strerror or first_line(error)}"
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _last_line(error: Exception) -> str:
    """The message alone: an error from a data-loading process carries that process's traceback above it."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1].removeprefix(f"{type(error).__module__}.{type(error).__name__}: ")
