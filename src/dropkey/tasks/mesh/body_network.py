"""What predicts a body from a picture: a backbone, a predictor of coarse points, and the way to the surface."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dropkey.data.body_source import BodyTopology
from dropkey.tasks.mesh.levels import farthest_vertices, interpolation

__all__ = ["Body", "BodyNetwork", "level_indices", "with_joints"]

_CAMERA_WIDTH = 250
_OUTPUT_SCALE = 0.25  # meters for an output of 1


class Body(NamedTuple):
    """What is predicted, in meters and the axes of the camera, around the pelvis.

    Args:
        joints: (B, J, 3), from tokens of their own.
        levels: vertices (B, V_i, 3) of each level, the coarsest first; the last one has all.
        camera: (B, 3): scale, and shift to the right and down. A point (x, y, z) is seen at
            scale * (x + right, y + down), where the picture reaches from -1 to 1.
    """

    joints: Tensor
    levels: tuple[Tensor, ...]
    camera: Tensor

    @property
    def vertices(self) -> Tensor:
        """All vertices (B, V, 3)."""
        return self.levels[-1]

    def seen(self, points: Tensor) -> Tensor:
        """Return where points (B, N, 3) are in the picture, (B, N, 2)."""
        return self.camera[:, None, :1] * (points[..., :2] + self.camera[:, None, 1:])


class BodyNetwork(nn.Module):
    """Predict the surface of a body from a picture.

    Points are predicted around the mean body, so that training begins there and not at random. A coarse level is a
    choice of the surface's vertices, evenly spread; the learned way back begins as an interpolation.

    Args:
        backbone: timm model; its ``forward_features`` gives (B, C, rows, cols).
        predictor: from these features to offsets (B, J + V, 3) of joints and coarsest vertices, and a feature
            (B, width) of the picture for the camera.
        topology: what the bodies have in common.
        indices: vertices of each level, see ``level_indices``.
        width: of the picture's feature.
    """

    base: Tensor
    joint_weights: Tensor

    def __init__(
        self, backbone: nn.Module, predictor: nn.Module, topology: BodyTopology, indices: Sequence[Tensor], width: int
    ) -> None:
        super().__init__()
        self.backbone, self.predictor = backbone, predictor
        self.num_joints, self.level_indices = topology.num_joints, indices
        self.register_buffer("base", with_joints(topology.mean_mm, topology, indices[0]), persistent=False)
        self.register_buffer("joint_weights", torch.from_numpy(topology.joint_weights), persistent=False)
        self.up = nn.ModuleList(
            _Refined(topology, fine.numpy(), coarse.numpy()) for coarse, fine in itertools.pairwise(indices)
        )
        self.camera = _CameraOf(len(indices[0]), width)

    def forward(self, images: Tensor) -> Body:
        """Return the bodies in images (B, 3, size, size)."""
        offsets, image = self.predictor(self.backbone.forward_features(images))  # type: ignore[operator]
        points = self.base + _OUTPUT_SCALE * offsets
        joints, vertices = points[:, : self.num_joints], points[:, self.num_joints :]
        levels = [vertices]
        for up in self.up:
            levels.append(up(levels[-1]))
        return Body(joints, tuple(levels), self.camera(vertices, image))

    def joints_of(self, vertices: Tensor) -> Tensor:
        """Return the joints (B, J, 3) of a surface (B, V, 3)."""
        return self.joint_weights @ vertices


def level_indices(topology: BodyTopology, sizes: Sequence[int]) -> list[Tensor]:
    """Return the vertices of each level, the coarsest first; a coarser choice begins a finer one, the last has all.

    Args:
        topology: what the bodies have in common.
        sizes: numbers of vertices below that of the surface; others are left out.
    """
    sizes = [size for size in sizes if size < topology.num_vertices]
    order = farthest_vertices(topology.template_mm, max(sizes, default=0))
    return [*(torch.from_numpy(order[:size]) for size in sizes), torch.arange(topology.num_vertices)]


def with_joints(vertices_mm: Any, topology: BodyTopology, indices: Tensor) -> Tensor:
    """Return the joints and some vertices (J + V, 3) of a body in meters."""
    vertices = torch.from_numpy(vertices_mm) / 1000
    return torch.cat([torch.from_numpy(topology.joint_weights) @ vertices, vertices[indices]])


class _Refined(nn.Module):
    """Vertices of a finer level by a learned linear map of the coarser level's offsets from the mean body."""

    coarse: Tensor
    fine: Tensor

    def __init__(self, topology: BodyTopology, fine: Any, coarse: Any) -> None:
        super().__init__()
        weights = interpolation(topology.template_mm[fine], topology.template_mm[coarse])
        self.map = nn.Linear(len(coarse), len(fine))
        self.map.weight.data.copy_(torch.from_numpy(weights))
        nn.init.zeros_(self.map.bias)
        mean = torch.from_numpy(topology.mean_mm) / 1000
        self.register_buffer("coarse", mean[coarse], persistent=False)
        self.register_buffer("fine", mean[fine], persistent=False)

    def forward(self, vertices: Tensor) -> Tensor:
        offsets = (vertices - self.coarse).transpose(1, 2)
        moved: Tensor = self.fine + self.map(offsets).transpose(1, 2)
        return moved


class _CameraOf(nn.Module):
    """Scale and shift of the picture from the coarse vertices and the image."""

    def __init__(self, vertices: int, width: int) -> None:
        super().__init__()
        self.point = nn.Linear(3, 1)
        self.inner = nn.Linear(vertices, _CAMERA_WIDTH)
        self.outer = nn.Linear(_CAMERA_WIDTH, 3)
        self.place = nn.Linear(width, 3, bias=False)
        for layer in (self.outer, self.place):
            nn.init.normal_(layer.weight, std=0.01)
        self.outer.bias.data.copy_(torch.tensor([1.0, 0.0, 0.0]))

    def forward(self, vertices: Tensor, image: Tensor) -> Tensor:
        of_body = self.outer(self.inner(self.point(vertices).squeeze(-1)))
        camera: Tensor = of_body + self.place(image)
        return camera
