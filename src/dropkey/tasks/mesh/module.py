"""METRO in training: the loss and what is measured."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from dropkey.adapters.handle import Handle
from dropkey.data.body_batches import BodyBatch
from dropkey.data.body_source import BodyTopology
from dropkey.errors import RunError
from dropkey.runs.module import VAL_SETS, RunModule
from dropkey.tasks.mesh.body_network import Body, BodyNetwork
from dropkey.tasks.mesh.config import MeshConfig
from dropkey.tasks.mesh.loss import JOINT_LOSSES
from dropkey.tasks.mesh.metrics import MPJPE, MPVE, PAMPJPE

__all__ = ["Mesh"]


class Mesh(RunModule):
    """Train METRO or what stands beside it; measure it on validation and on clean training bodies.

    Joints are measured where the predicted surface has them, as METRO does.

    Args:
        network: predicts bodies.
        config: options of the run.
        topology: what the bodies have in common.
        handle: the regularizer on the network, or None.
    """

    config: MeshConfig
    network: BodyNetwork

    def __init__(self, network: BodyNetwork, config: MeshConfig, topology: BodyTopology, handle: Handle | None) -> None:
        super().__init__(network, config, handle)
        self.topology = topology
        self.loss = JOINT_LOSSES[config.joint_loss]
        self.measures = nn.ModuleDict()
        for name in VAL_SETS:
            self.measures[f"{name}_MPJPE"] = MPJPE(topology.num_joints, topology.hips)
            self.measures[f"{name}_PA-MPJPE"] = PAMPJPE(topology.num_joints)
            self.measures[f"{name}_MPVE"] = MPVE(topology.num_vertices, topology.hips)
            self.measures[f"{name}_loss"] = MeanMetric(nan_strategy="disable")

    def forward(self, images: Tensor) -> Body:
        """Return the bodies in images."""
        body = self.network(images)
        assert isinstance(body, Body)
        return body

    def training_step(self, batch: BodyBatch, batch_idx: int) -> Tensor:
        batch = BodyBatch(*batch)
        loss = self.loss(self.network, self(batch.images), batch, self.topology.hips)
        self.add_up(loss, {"loss": loss}, len(batch.images), batch_idx)
        return loss

    def validation_step(self, batch: BodyBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        batch, name = BodyBatch(*batch), VAL_SETS[dataloader_idx]
        body = self(batch.images)
        self._measure(f"{name}_loss").update(
            self.loss(self.network, body, batch, self.topology.hips), len(batch.images)
        )
        vertices, joints = 1000 * body.vertices, 1000 * self.network.joints_of(body.vertices)
        if not torch.isfinite(vertices).all():
            raise self.not_finite(f"after step {self.global_step - 1}")
        true_vertices, true_joints = 1000 * batch.vertices, 1000 * batch.joints
        self._measure(f"{name}_MPJPE").update(joints, true_joints)
        self._measure(f"{name}_PA-MPJPE").update(joints, true_joints)
        self._measure(f"{name}_MPVE").update(vertices, joints, true_vertices, true_joints)

    def val_measures(self) -> dict[str, float]:
        result = {}
        for name in self.measures:
            metric = self._measure(name)
            result[name] = float(metric.compute())
            metric.reset()
        return result

    def check(self, checkpoint: Mapping[str, Any], path: Path) -> None:
        before, now = checkpoint.get("surface"), self._surface()
        if before is not None and list(before) != now:
            raise RunError(
                f"{path} was trained on bodies of {before[0]} vertices and {before[1]} joints, and the data has "
                f"{now[0]} and {now[1]}: restore the data, or start a new run"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["surface"] = self._surface()

    def _surface(self) -> list[int]:
        return [self.topology.num_vertices, self.topology.num_joints]

    def _measure(self, name: str) -> Metric:
        metric = self.measures[name]
        assert isinstance(metric, Metric)
        return metric
