"""Image classification: the loss, the optimizer and what is measured."""

import math
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from timm import optim, scheduler
from timm.data.mixup import Mixup
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from dropkey.adapters.handle import Handle
from dropkey.adapters.maps import attention_maps
from dropkey.data.seeds import seed_all
from dropkey.errors import RunError
from dropkey.ops.map_similarity import map_similarity
from dropkey.tasks.config import TrainConfig
from dropkey.tasks.recipes import filled

__all__ = ["Classification"]

_NONE = 2**62
_FINITE_CHECKS = 25  # batches between looks at the loss on an accelerator, where every look waits for it
VAL_SETS = ("val", "clean_train")  # in the order of ImageData.val_dataloader


class Classification(pl.LightningModule):
    """Train a classifier; measure it on validation and on clean training images.

    Every training step seeds the generators by (seed, epoch, batch, rank): see ``dropkey.data.seeds``. The learning
    rate is a function of the step. So neither random states nor scheduler states belong to a checkpoint.

    Args:
        network: (B, 3, size, size) float images -> (B, classes) logits.
        config: options of the run.
        classes: names of the classes.
        handle: the regularizer on the network, or None.
    """

    def __init__(self, network: nn.Module, config: TrainConfig, classes: Sequence[str], handle: Handle | None) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.handle = handle
        self.classes = list(classes)
        num_classes = len(self.classes)
        measures = {f"{name}_accuracy": MulticlassAccuracy(num_classes, average="micro") for name in VAL_SETS}
        losses = {f"{name}_loss": MeanMetric(nan_strategy="disable") for name in VAL_SETS}
        self.measures = nn.ModuleDict({**measures, **losses})
        self.mixup = _mixup(config, num_classes)
        # Sums of this epoch so far, on this process: loss, right answers, images, and similarity of maps if asked for.
        self.running = self._nothing()
        self.first_bad = torch.tensor(_NONE)  # step of the first loss that was not finite

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        logits = self.network(images)
        assert isinstance(logits, Tensor)
        return logits

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self.running = self._nothing()
        self._set_dropping(self.current_epoch < filled(self.config.epochs) - self.config.finetune_epochs)
        seed_all(self.config.seed, "step", self.current_epoch, batch_idx, self.global_rank)
        if self.schedule is not None:
            self.schedule.step_update(self.global_step)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        targets, smoothing = labels, filled(self.config.label_smoothing)
        if self.mixup is not None and len(images) % 2 == 0:
            images, targets = self.mixup(images, labels)
            smoothing = 0.0  # it smooths the labels itself
        logits, similarity = self._logits_and_similarity(images)
        loss = F.cross_entropy(logits, targets, label_smoothing=smoothing)
        total = loss if similarity is None else loss + self.config.map_similarity_loss * similarity
        self._look_at(total.detach(), batch_idx)
        right = (logits.detach().argmax(-1) == labels).sum()
        parts = [loss.detach().double() * len(labels), right.double(), right.new_tensor(len(labels))]
        if similarity is not None:
            parts.append(similarity.detach().double() * len(labels))
        self.running = self.running.to(loss.device) + torch.stack(parts)
        self.log("loss", loss.detach(), prog_bar=True, logger=False)
        return total

    def _logits_and_similarity(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        if not self.config.map_similarity_loss:
            return self(images), None
        with attention_maps(self.network) as maps:
            logits = self(images)
        return logits, map_similarity(maps)

    def _look_at(self, loss: Tensor, batch_idx: int) -> None:
        """Note the step of a loss that is not finite."""
        self.first_bad = self.first_bad.to(loss.device)
        self.first_bad = torch.where(torch.isfinite(loss), self.first_bad, self.first_bad.clamp(max=self.global_step))
        if batch_idx % (1 if loss.device.type == "cpu" else _FINITE_CHECKS) == 0:
            self.require_finite()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        images, labels = batch
        logits = self(images).float()
        name = VAL_SETS[dataloader_idx]
        self._measure(f"{name}_accuracy").update(logits, labels)
        self._measure(f"{name}_loss").update(F.cross_entropy(logits, labels), len(labels))

    def take_measures(self) -> dict[str, float]:
        """Return what the epoch has shown, over all processes, and begin anew."""
        total = self._summed_running()
        result = {"train_loss": total[0] / total[2], "train_accuracy": total[1] / total[2]}
        if self.config.map_similarity_loss:
            result["map_similarity"] = total[3] / total[2]
        for name in self.measures:
            metric = self._measure(name)
            result[name] = float(metric.compute())
            metric.reset()
        if not math.isfinite(result["val_loss"] + result["clean_train_loss"]):
            raise self._not_finite(f"after step {self.global_step - 1}")
        return result

    def configure_optimizers(self) -> torch.optim.Optimizer:
        config, lr, epochs = self.config, filled(self.config.lr), filled(self.config.epochs)
        decays: dict[str, Any] = {} if config.layer_decay == 1 else {"layer_decay": config.layer_decay}
        optimizer = optim.create_optimizer_v2(  # type: ignore[attr-defined]
            self.network, opt="adamw", lr=lr, weight_decay=filled(config.weight_decay), **decays
        )
        assert isinstance(optimizer, torch.optim.Optimizer)
        self.schedule = scheduler.create_scheduler_v2(  # type: ignore[attr-defined]
            optimizer,
            sched="cosine",
            num_epochs=epochs,
            warmup_epochs=min(filled(config.warmup_epochs), epochs - 1),
            warmup_lr=lr / 100,
            min_lr=lr / 100,
            step_on_epochs=False,
            updates_per_epoch=round(self.trainer.estimated_stepping_batches / epochs),
        )[0]
        return optimizer

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.require_finite()
        checkpoint["running"] = self._summed_running()
        checkpoint["classes"] = self.classes

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        total = torch.tensor(checkpoint["running"], dtype=torch.float64)
        self.running = total if self.global_rank == 0 else torch.zeros_like(total)

    def _nothing(self) -> Tensor:
        return torch.zeros(4 if self.config.map_similarity_loss else 3, dtype=torch.float64)

    def _summed_running(self) -> list[float]:
        total = self.running.to(self.device, copy=True)
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(total)
        return [float(value) for value in total]

    def _measure(self, name: str) -> Metric:
        metric = self.measures[name]
        assert isinstance(metric, Metric)
        return metric

    def _set_dropping(self, active: bool) -> None:
        if self.handle is None or self.handle.enabled == active:
            return
        if active:
            self.handle.enable()
        else:
            self.handle.disable()

    def require_finite(self) -> None:
        """Raise a RunError that names the step if a loss was not finite: the weights are spoilt from there on."""
        if int(self.first_bad) != _NONE:
            raise self._not_finite(f"at step {int(self.first_bad)}")

    def _not_finite(self, where: str) -> RunError:
        return RunError(
            f"the loss is not finite {where} (epoch {self.current_epoch + 1}): a lower --lr, --clip-grad 1 or "
            "--precision 32-true may help; the checkpoints keep the state before"
        )


def _mixup(config: TrainConfig, num_classes: int) -> Mixup | None:
    mixup, cutmix = filled(config.mixup), filled(config.cutmix)
    if not mixup and not cutmix:
        return None
    smoothing = filled(config.label_smoothing)
    return Mixup(  # type: ignore[no-untyped-call]
        mixup_alpha=mixup, cutmix_alpha=cutmix, label_smoothing=smoothing, num_classes=num_classes
    )
