"""Interaction: the loss of the network's heads, and average precision of pairs."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from dropkey.adapters.handle import Handle
from dropkey.data.paired_images import PairedImages, PairSource
from dropkey.runs.module import VAL_SETS, RunModule
from dropkey.runs.same_names import check_same_names
from dropkey.tasks.detection.optimizer import detection_optimizer
from dropkey.tasks.interaction.config import InteractionConfig
from dropkey.tasks.interaction.found_pairs import PairResult
from dropkey.tasks.interaction.interactions import Interactions, best_interactions, joined
from dropkey.tasks.interaction.protocols import protocol_of

__all__ = ["Interaction"]


class Interaction(RunModule):
    """Train a network that finds pairs; measure it on validation and on clean training images.

    Args:
        network: a ``PairNetwork``, which computes its loss itself.
        config: options of the run.
        source: the images; their pairs are the truth.
        handle: the regularizer on the network, or None.
    """

    config: InteractionConfig

    def __init__(
        self, network: nn.Module, config: InteractionConfig, source: PairSource, handle: Handle | None
    ) -> None:
        super().__init__(network, config, handle)
        self.source = source
        self.protocol = protocol_of(source)
        self.truth: dict[str, PairedImages] = dict(zip(VAL_SETS, (source.val, source.train), strict=True))
        self.found: dict[str, list[Interactions]] = {name: [] for name in VAL_SETS}
        self.seen: dict[str, list[int]] = {name: [] for name in VAL_SETS}
        self.losses = nn.ModuleDict({name: MeanMetric(nan_strategy="disable") for name in VAL_SETS})

    def num_examples(self, batch: Any) -> int:
        return len(batch["indices"])

    def forward(self, batch: Mapping[str, Any]) -> PairResult:
        """Return what the network says of a batch."""
        result: PairResult = self.network(**{name: value for name, value in batch.items() if name != "indices"})
        return result

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        loss = self(batch).loss
        self.add_up(loss, {"loss": loss}, self.num_examples(batch), batch_idx)
        assert isinstance(loss, Tensor)
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        name = VAL_SETS[dataloader_idx]
        result = self(batch)
        sizes = self.truth[name].sizes
        self.found[name].append(best_interactions(result.found, self.source.possible, batch["indices"].cpu(), sizes))
        self.seen[name] += batch["indices"].tolist()
        self._loss(name).update(result.loss.float(), self.num_examples(batch))

    def val_measures(self) -> dict[str, float]:
        result = {}
        for name in VAL_SETS:
            parts = self._gathered((self.found[name], self.seen[name]))
            self.found[name], self.seen[name] = [], []
            found = joined(part for parts_found, _ in parts for part in parts_found)
            seen = sorted(index for _, indices in parts for index in indices)
            value = self.protocol.headline(self.truth[name], seen, found)
            result[f"{name}_mAP"] = math.nan if value is None else value
            loss = self._loss(name)
            result[f"{name}_loss"] = float(loss.compute())
            loss.reset()
        return result

    def build_optimizer(self) -> torch.optim.Optimizer:
        return detection_optimizer(self.network, self.config)

    def check(self, checkpoint: Mapping[str, Any], path: Path) -> None:
        for kind, now in (("classes", self.source.classes), ("verbs", self.source.verbs)):
            check_same_names(path, kind, checkpoint.get(kind), now)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["classes"], checkpoint["verbs"] = list(self.source.classes), list(self.source.verbs)

    def _loss(self, name: str) -> MeanMetric:
        loss = self.losses[name]
        assert isinstance(loss, MeanMetric)
        return loss

    def _gathered(self, mine: Any) -> list[Any]:
        """Return what every process has collected."""
        if self.trainer.world_size == 1:
            return [mine]
        parts: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(parts, mine)
        return parts
