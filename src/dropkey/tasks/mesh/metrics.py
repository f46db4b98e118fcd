"""Errors of bodies in millimeters: MPJPE, PA-MPJPE and MPVE as torchmetrics metrics.

The formula of all three is the mean distance between a predicted point and its true one, over points and bodies. They
differ in which points, and in how the two bodies are laid on each other before.
"""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from dropkey.errors import ArgumentError
from dropkey.tasks.mesh.alignment import pelvis_centered, pelvis_of, similarity_aligned

__all__ = ["MPJPE", "MPVE", "PAMPJPE"]


class _MeanDistance(Metric):
    """Sums of distances by point; a subclass says what is compared."""

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    distances: Tensor
    bodies: Tensor

    def __init__(self, num_points: int, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.num_points = num_points
        self.add_state("distances", torch.zeros(num_points, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("bodies", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        """Return the mean distance in millimeters."""
        return self.per_point().mean()

    def per_point(self) -> Tensor:
        """Return the mean distance of each point in millimeters, (N,)."""
        return self.distances / self.bodies

    def _add(self, points: Tensor, target: Tensor) -> None:
        self.distances += (points.double() - target.double()).norm(dim=-1).sum(0)
        self.bodies += len(points)

    def _check(self, points: Tensor, target: Tensor, what: str) -> None:
        expected = (self.num_points, 3)
        if points.shape != target.shape or points.ndim != 3 or tuple(points.shape[1:]) != expected:
            raise ArgumentError(
                f"{what} must be (B, {self.num_points}, 3), predicted as true ones; got {tuple(points.shape)} and "
                f"{tuple(target.shape)}"
            )


class MPJPE(_MeanDistance):
    """Measure the mean per-joint position error, with both bodies around their pelvis, the mean of the hips.

    Args:
        num_joints: J.
        hips: indices of the left and the right hip.

    Example:
        >>> error = MPJPE(num_joints=3, hips=(0, 1))
        >>> true = torch.tensor([[[-100.0, 0, 0], [100.0, 0, 0], [0, 0, 500.0]]])
        >>> error.update(true + torch.tensor([0.0, 0, 30.0]), true)  # a body that is elsewhere
        >>> float(error.compute())
        0.0

    Source: Ionescu et al., Human3.6M, TPAMI 2014.
    """

    def __init__(self, num_joints: int, hips: tuple[int, int], **arguments: Any) -> None:
        super().__init__(num_joints, **arguments)
        self.hips = hips

    def update(self, joints_mm: Tensor, target_mm: Tensor) -> None:
        """Add predicted and true joints, (B, J, 3) in millimeters."""
        self._check(joints_mm, target_mm, "joints")
        self._add(pelvis_centered(joints_mm.double(), self.hips), pelvis_centered(target_mm.double(), self.hips))


class PAMPJPE(_MeanDistance):
    """Measure MPJPE after the best rotation, scale and shift of each predicted body: what is left is its pose.

    The alignment has no reflection: a mirrored body is wrong, and is measured as wrong.

    Args:
        num_joints: J.

    Source: as MPJPE; the alignment is in ``dropkey.tasks.mesh.alignment``.
    """

    def __init__(self, num_joints: int, **arguments: Any) -> None:
        super().__init__(num_joints, **arguments)

    def update(self, joints_mm: Tensor, target_mm: Tensor) -> None:
        """Add predicted and true joints, (B, J, 3) in millimeters."""
        self._check(joints_mm, target_mm, "joints")
        self._add(similarity_aligned(joints_mm, target_mm), target_mm)


class MPVE(_MeanDistance):
    """Measure the mean per-vertex error, with both bodies around their pelvis.

    Args:
        num_vertices: V.
        hips: indices of the left and the right hip among the joints.

    Source: Lin et al., METRO, CVPR 2021, section 4.2.
    """

    def __init__(self, num_vertices: int, hips: tuple[int, int], **arguments: Any) -> None:
        super().__init__(num_vertices, **arguments)
        self.hips = hips

    def update(
        self, vertices_mm: Tensor, joints_mm: Tensor, target_vertices_mm: Tensor, target_joints_mm: Tensor
    ) -> None:
        """Add predicted and true bodies: vertices (B, V, 3) and the joints (B, J, 3) that say where the pelvis is."""
        self._check(vertices_mm, target_vertices_mm, "vertices")
        pelvis, target_pelvis = (pelvis_of(joints.double(), self.hips) for joints in (joints_mm, target_joints_mm))
        self._add(vertices_mm.double() - pelvis, target_vertices_mm.double() - target_pelvis)
