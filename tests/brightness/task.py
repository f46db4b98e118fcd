"""The task as the commands see it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from brightness.config import BrightnessConfig
from brightness.data import BrightnessData, noise
from brightness.module import GRAY_LEVELS, Brightness
from dropkey.adapters.apply import apply
from dropkey.models.timm_network import build_network
from dropkey.runs.measure import Measure
from dropkey.runs.prepared import Prepared
from dropkey.runs.regularizer_options import build_regularizer
from dropkey.tasks.evaluation import EvaluationOptions
from dropkey.tasks.task import Built, Task

Source = dict[str, TensorDataset]


class BrightnessTask(Task[BrightnessConfig, Source]):
    name = "brightness"
    config_class = BrightnessConfig
    measures = (Measure("error", "levels", "lower", digits=2),)

    def recipe(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {"epochs": 4, "warmup_epochs": 1}

    def load_source(self, config: BrightnessConfig) -> Source:
        return {"train": noise(config.num_images, 0), "val": noise(config.num_images // 3, 1)}

    def build(self, config: BrightnessConfig, source: Source, *, fresh: bool) -> Built:
        network = build_network(config.model, 1)
        regularizer = build_regularizer(config)
        return Built(network, None if regularizer is None else apply(network, regularizer))

    def batches(self, config: BrightnessConfig, source: Source, network: nn.Module) -> BrightnessData:
        return BrightnessData(source, config.batch_size, config.seed, config.workers)

    def module(self, config: BrightnessConfig, source: Source, built: Built) -> Brightness:
        return Brightness(built.network, config, built.handle)

    def trial(self, config: BrightnessConfig, batch_size: int) -> tuple[nn.Module, dict[str, Any]]:
        return build_network(config.model, 1), {"": torch.rand(batch_size, 3, 8, 8)}

    def evaluate(self, trained: Prepared, options: EvaluationOptions) -> dict[str, Any]:
        return {"error": float((self._levels(trained) - self._truth(trained)).abs().mean()) * GRAY_LEVELS}

    def table(self, result: Mapping[str, Any]) -> str:
        return f"mean error {self.measures[0].text(result['error'])}"

    def save_predictions(self, trained: Prepared, path: Path) -> None:
        path.write_text("".join(f"{level:.4f}\n" for level in self._levels(trained)))

    @torch.no_grad()
    def _levels(self, trained: Prepared) -> torch.Tensor:
        network = trained.network.eval()
        return torch.cat([network(images).squeeze(-1) for images, _ in trained.data.val_dataloader()[0]])

    def _truth(self, trained: Prepared) -> torch.Tensor:
        return torch.cat([levels for _, levels in trained.data.val_dataloader()[0]])


TASK = BrightnessTask()
