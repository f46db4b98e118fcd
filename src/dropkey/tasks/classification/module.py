"""Image classification: the loss and what is measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from timm.data.mixup import Mixup
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from dropkey.adapters.handle import Handle
from dropkey.adapters.maps import attention_maps
from dropkey.ops.map_similarity import map_similarity
from dropkey.runs.module import VAL_SETS, RunModule
from dropkey.runs.options import idle_because
from dropkey.runs.same_names import check_same_names
from dropkey.tasks.classification.config import ClassificationConfig
from dropkey.tasks.classification.consistency import doubled, inconsistency

__all__ = ["Classification"]


class Classification(RunModule):
    """Train a classifier; measure it on validation and on clean training images.

    Args:
        network: (B, 3, size, size) float images -> (B, classes) logits.
        config: options of the run.
        classes: names of the classes.
        handle: the regularizer on the network, or None.
    """

    config: ClassificationConfig

    def __init__(
        self, network: nn.Module, config: ClassificationConfig, classes: Sequence[str], handle: Handle | None
    ) -> None:
        self.consistency = 0.0 if idle_because(config, "consistency") else config.consistency
        similarity = ["map_similarity"] if config.map_similarity_loss else []
        inconsistent = ["inconsistency"] if self.consistency else []
        super().__init__(network, config, handle, running=["loss", "accuracy", *similarity, *inconsistent])
        self.classes = list(classes)
        num_classes = len(self.classes)
        measures = {f"{name}_accuracy": MulticlassAccuracy(num_classes, average="micro") for name in VAL_SETS}
        losses = {f"{name}_loss": MeanMetric(nan_strategy="disable") for name in VAL_SETS}
        self.measures = nn.ModuleDict({**measures, **losses})
        self.mixup = _mixup(config, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        logits = self.network(images)
        assert isinstance(logits, Tensor)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        targets, smoothing = labels, self.config.label_smoothing
        if self.mixup is not None:  # ImageData has made the batches even
            images, targets = self.mixup(images, labels)
            smoothing = 0.0  # it smooths the labels itself
        if self.consistency:
            images, targets = doubled(images, targets)
        logits, similarity = self._logits_and_similarity(images)
        loss = F.cross_entropy(logits, targets, label_smoothing=smoothing)
        total = loss if similarity is None else loss + self.config.map_similarity_loss * similarity
        means = {"loss": loss, "accuracy": (logits[: len(labels)].detach().argmax(-1) == labels).double().mean()}
        if similarity is not None:
            means["map_similarity"] = similarity
        if self.consistency:
            means["inconsistency"] = inconsistency(logits)
            total = total + self.consistency * means["inconsistency"]
        self.add_up(total, means, len(labels), batch_idx)
        return total

    def _logits_and_similarity(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        if not self.config.map_similarity_loss:
            return self(images), None
        with attention_maps(self.network) as maps:
            logits = self(images)
        return logits, map_similarity(maps)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        images, labels = batch
        logits = self(images).float()
        name = VAL_SETS[dataloader_idx]
        self._measure(f"{name}_accuracy").update(logits, labels)
        self._measure(f"{name}_loss").update(F.cross_entropy(logits, labels), len(labels))

    def take_measures(self) -> dict[str, float]:
        measures = super().take_measures()
        if "train_map_similarity" in measures:
            measures["map_similarity"] = measures.pop("train_map_similarity")
        return measures

    def val_measures(self) -> dict[str, float]:
        result = {}
        for name in self.measures:
            metric = self._measure(name)
            result[name] = float(metric.compute())
            metric.reset()
        return result

    def build_optimizer(self) -> torch.optim.Optimizer:
        decay = self.config.layer_decay
        return self._adamw(**({} if decay == 1 else {"layer_decay": decay}))

    def check(self, checkpoint: Mapping[str, Any], path: Path) -> None:
        check_same_names(path, "classes", checkpoint.get("classes"), self.classes)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["classes"] = self.classes

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if isinstance(checkpoint["running"], list):  # before tasks: the sums without their names
            names = ["loss", "accuracy", "count", "map_similarity"]
            checkpoint["running"] = dict(zip(names, checkpoint["running"], strict=False))
        super().on_load_checkpoint(checkpoint)

    def _measure(self, name: str) -> Metric:
        metric = self.measures[name]
        assert isinstance(metric, Metric)
        return metric


def _mixup(config: ClassificationConfig, num_classes: int) -> Mixup | None:
    if not config.mixup and not config.cutmix:
        return None
    return Mixup(  # type: ignore[no-untyped-call]
        mixup_alpha=config.mixup,
        cutmix_alpha=config.cutmix,
        label_smoothing=config.label_smoothing,
        num_classes=num_classes,
    )
