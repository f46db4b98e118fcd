"""What each epoch has shown: rows for metrics.csv and TensorBoard, and the clock."""

import time
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl

from dropkey.runs.measure import Measure
from dropkey.runs.module import RunModule
from dropkey.runs.run_folder import RunFolder

__all__ = ["EpochRecord"]

Row = dict[str, Any]


class EpochRecord(pl.Callback):
    """Measures every epoch that is evaluated and keeps the rows.

    They travel in the checkpoints, so a resumed run has all of them.

    Args:
        folder: where metrics.csv goes.
        headline: the measure that says which epoch is best.
        report: called with each new row.
    """

    def __init__(self, folder: RunFolder, headline: Measure, report: Callable[[Row], None]) -> None:
        self.folder = folder
        self.headline = headline
        self.report = report
        self.rows: list[Row] = []
        self.train_seconds = 0.0  # in all, evaluation included
        self.step_seconds = 0.0  # in training steps and reading their images
        self.num_images = 0  # examples trained on so far, over all processes
        self._epoch_seconds = 0.0
        self._clock = time.monotonic()

    @property
    def best(self) -> Row:
        """The row of the best headline measure, the first of equals."""
        best = self.rows[0]
        for row in self.rows:
            if self.headline.is_better(row[self.headline.val], best[self.headline.val]):
                best = row
        return best

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._clock = time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._tick()  # what was saved since the epoch before is no training step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.num_images += pl_module.num_examples(batch) * trainer.world_size
        self.step_seconds += self._tick()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, RunModule)
        if (trainer.current_epoch + 1) % pl_module.config.evaluate_every:
            return
        measures = pl_module.take_measures()
        self._tick()
        handle = pl_module.handle
        row = {
            "epoch": trainer.current_epoch,
            **{name: round(value, 6) for name, value in measures.items()},
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "drop_ratio": max(handle.drop_ratios) if handle is not None and handle.enabled else 0.0,
            "seconds": round(self._epoch_seconds, 3),
        }
        self._epoch_seconds = 0.0
        self.rows.append(row)
        if trainer.is_global_zero:
            self.folder.write_metrics(self.rows)
            self.report(row)
        if trainer.logger is not None:
            trainer.logger.log_metrics({key: row[key] for key in row if key != "epoch"}, step=trainer.current_epoch)

    def state_dict(self) -> dict[str, Any]:
        names = ("rows", "train_seconds", "step_seconds", "num_images", "_epoch_seconds")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, value in state_dict.items():
            setattr(self, name, value)

    def _tick(self) -> float:
        """Add the time since the last tick to the epoch and to the run, and return it."""
        now = time.monotonic()
        elapsed, self._clock = now - self._clock, now
        self._epoch_seconds += elapsed
        self.train_seconds += elapsed
        return elapsed
