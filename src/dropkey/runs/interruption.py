"""Ctrl-C and SIGTERM: finish the step, save, leave."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerStatus

from dropkey.runs.checkpoints import Checkpoints, can_save

__all__ = ["Interrupted", "Interruption", "interruptible_start"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):  # noqa: N818  it is not an error
    """A run was asked to stop, and has saved its state."""


class Interruption(pl.Callback):
    """Saves ``last.ckpt`` after the step in which a signal comes, and raises Interrupted.

    A signal in the last step or in evaluation lets the epoch end first, since that saves. The same signal again leaves
    at once; another one may be the same request, sent to a whole group and passed on by its head. With several
    processes, a signal to any of them stops all.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.requested: set[int] = set()  # numbers of the signals that came
        self._previous: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._previous = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if can_save(trainer, batch_idx) and self._agreed(trainer):
            self.checkpoints.save(trainer, (trainer.current_epoch, batch_idx + 1))
            raise Interrupted

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._agreed(trainer):
            raise Interrupted  # the end of the epoch before has saved

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number in self.requested:
            raise Interrupted
        self.requested.add(number)

    def _agreed(self, trainer: pl.Trainer) -> bool:
        if trainer.world_size == 1:
            return bool(self.requested)
        requested = torch.tensor(float(bool(self.requested)), device=trainer.strategy.root_device)
        return bool(trainer.strategy.reduce(requested, reduce_op="sum") > 0)


@contextlib.contextmanager
def interruptible_start(trainer: pl.Trainer) -> Iterator[None]:
    """Raise Interrupted for Ctrl-C before training begins, where Lightning would leave the program with exit code 1."""
    previous = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        if trainer.state.status != TrainerStatus.INTERRUPTED:
            raise
        signal.signal(signal.SIGINT, previous)  # Lightning lets the program ignore it from then on
        raise Interrupted from None
