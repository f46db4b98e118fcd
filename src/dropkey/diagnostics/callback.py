"""A look at attention every few epochs of a training with Lightning, whoever wrote the trainer."""

import csv
import io
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from PIL import Image
from torch import Tensor, nn

from dropkey.adapters.chosen_modules import chosen_modules
from dropkey.adapters.discover import attention_modules
from dropkey.diagnostics.diagnose import diagnose
from dropkey.diagnostics.overlays import overlay_pixels
from dropkey.diagnostics.report import Report
from dropkey.diagnostics.report_file import write_look
from dropkey.diagnostics.site_measures import MEASURES
from dropkey.errors import ArgumentError, SiteError

__all__ = ["AttentionCallback"]

_LOOKS = 5  # in a run, by default


class AttentionCallback(pl.Callback):
    """Logs measures of attention and overlays on a few images, at the start of a validation.

    They go to every logger (images to those that take them, TensorBoard's for one) and into a folder: ``measures.csv``
    has a row for each look and site, ``epoch-0004.png`` shows where blocks look, and ``epoch-0004.report`` keeps the
    maps for a page over all epochs. The network is only looked at: random state, modes and buffers are as before, so a
    run gives the same weights with the callback and without.

    Args:
        every_n_epochs: epochs from one look to the next; the last epoch is always looked at. By default a fifth of the
            run, so that there are five looks at most.
        images: (B, C, height, width), as the network takes them; by default the first of the first validation batch.
        num_images: how many of that batch.
        network: what of the LightningModule to look at, a module that takes images; by default all of it.
        folder: where files go; by default "attention" below the trainer's ``default_root_dir``.

    Attributes:
        seconds: what the looks of this process have taken so far.

    Raises:
        ArgumentError: an interval or a number of images below 1.
        SiteError: when training starts, a network without known attention, sharded weights, or no validation.

    Example:
        >>> from dropkey.diagnostics.callback import AttentionCallback
        >>> callback = AttentionCallback(every_n_epochs=2)  # for pl.Trainer(callbacks=[callback])
    """

    def __init__(
        self,
        every_n_epochs: int | None = None,
        *,
        images: Tensor | None = None,
        num_images: int = 2,
        network: Callable[[Any], nn.Module] = lambda module: module,
        folder: Path | str | None = None,
    ) -> None:
        if (every_n_epochs is not None and every_n_epochs < 1) or num_images < 1:
            raise ArgumentError(
                f"every_n_epochs and num_images must be 1 or more, got {every_n_epochs} and {num_images}"
            )
        self.every_n_epochs = every_n_epochs
        self.images = images
        self.num_images = num_images
        self.network = network
        self.folder = None if folder is None else Path(folder)
        self.seconds = 0.0
        self.rows: list[dict[str, Any]] = []
        self._next = 0  # epoch of the next look

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.enable_validation:
            raise SiteError("AttentionCallback looks at the start of a validation, and this trainer has none")
        if hasattr(trainer.strategy, "device_mesh") or "FSDP" in type(trainer.strategy).__name__:
            raise SiteError("AttentionCallback runs the network on one process: it cannot look at sharded weights")
        network = self.network(pl_module)
        chosen_modules(network, attention_modules(network), None)
        self._next = self._next or self._interval(trainer) - 1

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        epoch, last = trainer.current_epoch, (trainer.max_epochs or 0) - 1
        is_due = epoch >= self._next or epoch == last
        if batch_idx or dataloader_idx or trainer.sanity_checking or trainer.state.fn != "fit" or not is_due:
            return
        self._next = epoch + self._interval(trainer)
        if trainer.is_global_zero:
            start = time.perf_counter()
            images = _images_of(batch)[: self.num_images] if self.images is None else self.images
            with trainer.precision_plugin.forward_context():
                report = diagnose(self.network(pl_module), images.to(pl_module.device))
            self._keep(report, epoch, self.folder or Path(trainer.default_root_dir) / "attention", trainer)
            self.seconds += time.perf_counter() - start

    def _interval(self, trainer: pl.Trainer) -> int:
        return self.every_n_epochs or max(1, math.ceil((trainer.max_epochs or 1) / _LOOKS))

    def _keep(self, report: Report, epoch: int, folder: Path, trainer: pl.Trainer) -> None:
        measures = {name: report.measure(name).tolist() for name in MEASURES}
        self.rows = [row for row in self.rows if row["epoch"] < epoch]
        for place, site in enumerate(report.sites):
            values = {name: _rounded(values[place]) for name, values in measures.items()}
            self.rows.append({"epoch": epoch, "site": site.name, **values})
        folder.mkdir(parents=True, exist_ok=True)
        _write_csv(folder / "measures.csv", self.rows)
        write_look(folder, epoch, report)
        has_picture = any(site.key_grid is not None and site.is_on_image for site in report.sites)
        pixels = overlay_pixels(report) if has_picture else None
        if pixels is not None:
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"epoch-{epoch:04d}.png", compress_level=1)
        named = {
            f"attention/{name}/{site.name}": values[place]
            for name, values in measures.items()
            for place, site in enumerate(report.sites)
            if not math.isnan(values[place])
        }
        for logger in trainer.loggers:
            logger.log_metrics(named, step=epoch)
            add_image = getattr(getattr(logger, "experiment", None), "add_image", None)
            if add_image is not None and pixels is not None:
                add_image("attention", pixels, global_step=epoch)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "next": self._next, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self._next, self.seconds = state_dict["rows"], state_dict["next"], state_dict["seconds"]


def _images_of(batch: Any) -> Tensor:
    """Return the first tensor of a batch that looks like images."""
    for leaf in torch.utils._pytree.tree_leaves(batch):
        if isinstance(leaf, Tensor) and leaf.dim() == 4 and leaf.is_floating_point():
            return leaf
    raise ArgumentError("no images (B, C, height, width) in the validation batch: pass images to AttentionCallback")


def _rounded(value: float) -> float | str:
    return "" if math.isnan(value) else round(value, 6)


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the file whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    part = path.with_name(path.name + ".part")
    part.write_text(text.getvalue())
    part.replace(path)
