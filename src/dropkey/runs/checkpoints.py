"""When a run saves its state, and how: ``last.ckpt`` and ``best.ckpt``, written whole or not at all."""

import io
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from dropkey.errors import RunError
from dropkey.models.torch_file import read_torch_file
from dropkey.runs.record import EpochRecord
from dropkey.runs.run_folder import RunFolder, write_atomically

__all__ = ["AtomicCheckpointIO", "Checkpoints", "can_save", "read_checkpoint"]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all, and reads it without running code from it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomically(Path(path), buffer.getvalue())

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        return read_checkpoint(Path(path))


class Checkpoints(Checkpoint):
    """Saves ``last.ckpt`` after every epoch and every ``seconds`` within one, ``best.ckpt`` by the headline measure.

    Inside an epoch it saves between two steps of the optimizer, where nothing is half done.

    Args:
        folder: where.
        record: says how good each epoch was.
        seconds: longest time of training that a crash can cost.
        fingerprint: what tells the data of the run from other data; kept in the checkpoints.
    """

    def __init__(self, folder: RunFolder, record: EpochRecord, seconds: float = 60.0, fingerprint: str = "") -> None:
        super().__init__()
        self.folder = folder
        self.fingerprint = fingerprint
        self.record = record
        self.seconds = seconds
        self.place: tuple[int, int] = (0, 0)  # (epoch, batch) that comes next
        self._last_save = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if can_save(trainer, batch_idx) and self._is_due(trainer):
            self.save(trainer, (trainer.current_epoch, batch_idx + 1))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.place = (trainer.current_epoch + 1, 0)
        if self.record.rows and self.record.best["epoch"] == trainer.current_epoch:
            trainer.save_checkpoint(self.folder.best_checkpoint)
        self.save(trainer, self.place)

    def save(self, trainer: pl.Trainer, place: tuple[int, int]) -> None:
        """Write ``last.ckpt``; training resumes at ``place``."""
        self.place = place
        trainer.save_checkpoint(self.folder.last_checkpoint)
        self._last_save = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"place": list(self.place), "fingerprint": self.fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        epoch, batch = state_dict["place"]
        self.place = (epoch, batch)

    def _is_due(self, trainer: pl.Trainer) -> bool:
        due = time.monotonic() - self._last_save > self.seconds
        return bool(trainer.strategy.broadcast(due)) if trainer.world_size > 1 else due


def can_save(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Return whether a run can resume exactly after this batch.

    Not inside an accumulated step, whose gradients are in no checkpoint, and not after the last batch: the end of the
    epoch saves.
    """
    is_last = batch_idx + 1 == trainer.num_training_batches
    return not is_last and (batch_idx + 1) % trainer.accumulate_grad_batches == 0


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint on the CPU, without running code from it.

    Raises:
        RunError: missing, cut short, or not a checkpoint of ours.
    """
    if not path.exists():
        raise RunError(f"no checkpoint {path}")
    checkpoint = read_torch_file(path, "a checkpoint")
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise RunError(f"{path} is not a checkpoint of a dropkey run: it has no state_dict")
    return checkpoint
