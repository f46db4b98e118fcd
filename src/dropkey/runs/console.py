"""What a run says while it runs, and what the libraries below are kept from saying."""

import contextlib
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import RichProgressBar

from dropkey.runs.measure import Measure

__all__ = ["progress_bars", "quiet_libraries", "row_line"]

# Warnings that the user of a command can do nothing about, each with why.
_UNMENDABLE = (
    r".*does not have many workers.*",  # --workers is a choice, and 0 is right for images in memory
    r".*number of training batches .* is smaller than the logging interval.*",  # nothing is logged by steps
    r".*[Cc]heckpoint directory .* exists and is not empty.*",  # that is what resuming means
    r".*resuming from a checkpoint that ended before the epoch ended.*",  # our order of images is resumable
    r".*module\(s\) in eval mode at the start of training.*",
    r".*GPU available but not used.*",
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",  # Lightning on a newer torch
    r".*lr_scheduler\.step\(\).*before.*optimizer\.step\(\).*",  # timm's schedulers set the rate before the first step
    r".*`training_step` returned `None`.*",
)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hide Lightning's notes on hardware and the warnings that the user can do nothing about, and no others."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    hook, threading.excepthook = threading.excepthook, _but_for_event_writers(threading.excepthook)
    with warnings.catch_warnings():
        for message in _UNMENDABLE:
            warnings.filterwarnings("ignore", message=message)
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            threading.excepthook = hook
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _but_for_event_writers(report: Callable[[threading.ExceptHookArgs], Any]) -> Callable[..., Any]:
    """Leave out the traceback of TensorBoard's thread: what it could not write is raised again where it is written."""

    def excepthook(failure: threading.ExceptHookArgs) -> None:
        of_events = type(failure.thread).__module__.startswith("tensorboard.")
        if not (of_events and isinstance(failure.exc_value, OSError)):
            report(failure)

    return excepthook


def progress_bars() -> list[pl.Callback]:
    """Return a progress bar with rate and remaining time, on a terminal only."""
    return [RichProgressBar(leave=False)] if sys.stdout.isatty() else []


def row_line(row: Mapping[str, Any], epochs: int, measures: Sequence[Measure]) -> str:
    """Return one line about an epoch."""
    headline = measures[0]
    parts = [f"epoch {row['epoch'] + 1:>3}/{epochs}", f"train loss {row['train_loss']:.4f}"]
    parts += [f"val {measure.words} {measure.text(row[measure.val])}" for measure in reversed(measures)]
    parts.append(f"clean train {headline.words} {headline.text(row[headline.clean_train])}")
    return "  ".join([*parts, f"{row['seconds']:.1f} s"])
