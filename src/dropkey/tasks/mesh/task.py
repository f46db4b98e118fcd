"""A body's surface from one picture, with METRO."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dropkey.adapters.apply import apply
from dropkey.data.body_batches import BodyAugmentation, BodyData
from dropkey.data.body_source import BodySource, BodyTopology
from dropkey.runs.measure import Measure
from dropkey.runs.prepared import Prepared
from dropkey.runs.regularizer_options import build_regularizer
from dropkey.tasks.mesh import evaluation
from dropkey.tasks.mesh.body_network import BodyNetwork
from dropkey.tasks.mesh.config import MeshConfig
from dropkey.tasks.mesh.module import Mesh
from dropkey.tasks.mesh.predictions import write_predictions
from dropkey.tasks.mesh.presets import build_body_network
from dropkey.tasks.mesh.recipes import recipe
from dropkey.tasks.mesh.sources import load_source
from dropkey.tasks.task import Built, Task

__all__ = ["TASK", "MeshTask"]

_MEASURES = ("MPJPE", "PA-MPJPE", "MPVE")


class MeshTask(Task[MeshConfig, BodySource]):
    """METRO on any source of bodies."""

    name = "mesh"
    config_class = MeshConfig
    evaluation_class = evaluation.MeshEvaluation
    measures = (*(Measure(name, "mm", "lower", digits=1) for name in _MEASURES), Measure("loss", "", "lower"))

    def recipe(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return recipe(given)

    def load_source(self, config: MeshConfig) -> BodySource:
        return load_source(config.data, config.data_dir, config.bodies, config.img_size)

    def build(self, config: MeshConfig, source: BodySource, *, fresh: bool) -> Built:
        network = _network(config, source.topology, pretrained=config.pretrained and fresh)
        regularizer = build_regularizer(config)
        example = torch.zeros(2, 3, config.img_size, config.img_size)
        return Built(network, None if regularizer is None else apply(network, regularizer, example=example))

    def batches(self, config: MeshConfig, source: BodySource, network: nn.Module) -> BodyData:
        augmentation = BodyAugmentation(config.rotation, config.scale, config.color_noise)
        return BodyData(source, config.img_size, augmentation, config.batch_size, config.seed, config.workers)

    def module(self, config: MeshConfig, source: BodySource, built: Built) -> Mesh:
        assert isinstance(built.network, BodyNetwork)
        return Mesh(built.network, config, source.topology, built.handle)

    def trial(self, config: MeshConfig, batch_size: int) -> tuple[nn.Module, dict[str, Any]]:
        network = _network(config, _trial_topology())
        return network, {"": torch.randn(batch_size, 3, config.img_size, config.img_size)}

    def evaluate(self, trained: Prepared, options: evaluation.MeshEvaluation) -> dict[str, Any]:
        return evaluation.measure(trained, options)

    def table(self, result: Mapping[str, Any]) -> str:
        return evaluation.table(result)

    def save_predictions(self, trained: Prepared, path: Path) -> None:
        write_predictions(trained, path)


def _network(config: MeshConfig, topology: BodyTopology, *, pretrained: bool = False) -> BodyNetwork:
    return build_body_network(
        config.model,
        topology,
        config.img_size,
        mask_ratio=config.mask_ratio,
        dropout=config.dropout,
        pretrained=pretrained,
    )


def _trial_topology() -> BodyTopology:
    """Points at random in place of a body: what attention does to them needs no data."""
    points = np.random.default_rng(0).normal(0, 300, (600, 3)).astype(np.float32)
    names = [f"joint {index}" for index in range(14)]
    weights = np.eye(14, 600, dtype=np.float32)
    return BodyTopology(points, points, np.zeros((0, 3), np.int64), names, (0, 1), weights)


TASK = MeshTask()
