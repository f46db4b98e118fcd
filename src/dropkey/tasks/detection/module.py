"""Detection: the loss of the model's own family, and average precision."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from dropkey.adapters.handle import Handle
from dropkey.data.boxed_images import BoxedImages, DetectionSource
from dropkey.runs.module import VAL_SETS, RunModule
from dropkey.runs.same_names import check_same_names
from dropkey.tasks.detection.average_precision import average_precision
from dropkey.tasks.detection.config import DetectionConfig
from dropkey.tasks.detection.detections import Detections, detections_of
from dropkey.tasks.detection.network import family_of
from dropkey.tasks.detection.optimizer import detection_optimizer

__all__ = ["Detection"]


class Detection(RunModule):
    """Train a detector of transformers; measure it on validation and on clean training images.

    Args:
        network: it computes the loss of its family itself, from labels.
        config: options of the run.
        source: the images; their boxes are the truth.
        handle: the regularizer on the network, or None.
    """

    config: DetectionConfig
    uses_all_parameters = False  # denoising queries are made of boxes, and a batch may have none

    def __init__(
        self, network: nn.Module, config: DetectionConfig, source: DetectionSource, handle: Handle | None
    ) -> None:
        super().__init__(network, config, handle)
        self.classes = list(source.classes)
        self.family = family_of(network)
        self.truth: dict[str, BoxedImages] = dict(zip(VAL_SETS, (source.val, source.train), strict=True))
        self.found: dict[str, list[Detections]] = {name: [] for name in VAL_SETS}
        self.losses = nn.ModuleDict({name: MeanMetric(nan_strategy="disable") for name in VAL_SETS})

    def num_examples(self, batch: Any) -> int:
        return len(batch["indices"])

    def forward(self, batch: Mapping[str, Any]) -> Any:
        """Return the output of the network for a batch, with its loss."""
        return self.network(**{name: value for name, value in batch.items() if name != "indices"})

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        loss: Tensor = self(batch).loss
        self.add_up(loss, {"loss": loss}, self.num_examples(batch), batch_idx)
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        name = VAL_SETS[dataloader_idx]
        output = self(batch)
        sizes = self.truth[name].sizes
        self.found[name] += detections_of(self.family, output.logits, output.pred_boxes, batch["indices"], sizes)
        self._loss(name).update(output.loss.float(), self.num_examples(batch))

    def val_measures(self) -> dict[str, float]:
        result = {}
        for name in VAL_SETS:
            found = self._gathered(self.found[name])
            self.found[name] = []
            truth = {image.index: self.truth[name].boxes(image.index) for image in found}
            summary = average_precision(truth, found, len(self.classes)).summary()
            for measure in ("mAP", "AP50"):
                value = summary[measure]
                result[f"{name}_{measure}"] = math.nan if value is None else value
            loss = self._loss(name)
            result[f"{name}_loss"] = float(loss.compute())
            loss.reset()
        return result

    def build_optimizer(self) -> torch.optim.Optimizer:
        return detection_optimizer(self.network, self.config)

    def check(self, checkpoint: Mapping[str, Any], path: Path) -> None:
        check_same_names(path, "classes", checkpoint.get("classes"), self.classes)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["classes"] = self.classes

    def _loss(self, name: str) -> MeanMetric:
        loss = self.losses[name]
        assert isinstance(loss, MeanMetric)
        return loss

    def _gathered(self, found: Sequence[Detections]) -> list[Detections]:
        """Return the detections of all processes in the order of the images."""
        parts: list[Any] = [list(found)]
        if self.trainer.world_size > 1:
            parts = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, list(found))
        return sorted((image for part in parts for image in part), key=lambda image: image.index)
