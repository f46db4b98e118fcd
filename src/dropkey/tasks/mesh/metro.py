"""METRO: a transformer over joints and vertices, each a token beside a feature of the image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dropkey.data.body_source import BodyTopology
from dropkey.tasks.mesh.levels import farthest_vertices, interpolation

__all__ = ["Body", "Metro", "MetroShape"]

_MASKED = 0.01  # what stands in a masked token
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


@dataclass(frozen=True)
class MetroShape:
    """Sizes of the transformer.

    Args:
        widths: width of each encoder.
        outputs: width of what each encoder hands on; the last one hands on points of width 3.
        depth: layers of each encoder.
        num_heads: heads of each layer.
        feedforward: hidden width of the feed-forward part of each encoder.
        norm_first: normalize before attention and feed-forward, not after.
        dropout: of embeddings, attention output and feed-forward, never of attention weights: that is a regularizer.
        mask_ratio: largest share of tokens that are masked in training.
        levels: numbers of vertices, the coarsest first, below that of the surface.
        image_width: features of the image beside each token; 0 takes those of the backbone as a whole, METRO's own.
    """

    widths: Sequence[int]
    outputs: Sequence[int]
    depth: int
    num_heads: int
    feedforward: Sequence[int]
    norm_first: bool
    dropout: float
    mask_ratio: float
    levels: Sequence[int]
    image_width: int


class Metro(nn.Module):
    """Predict the surface of a body from a picture.

    Args:
        backbone: timm model; its ``forward_features`` gives (B, C, rows, cols).
        topology: what the bodies have in common.
        shape: sizes.
        channels: C.
        places: rows x cols; needed where the shape has an ``image_width``.

    Source: Lin et al., End-to-End Human Pose and Mesh Reconstruction with Transformers, CVPR 2021. Departures: points
    are predicted around the mean body, so that training begins there and not at random; a coarse level is a choice of
    the surface's vertices, evenly spread, where METRO takes one made for SMPL; the learned way back begins as an
    interpolation; the camera follows from the image too, since bodies need not stand in its middle; and the encoders
    leave out what BERT brings along unused (word embeddings, poolers: 45 M parameters).
    """

    template: Tensor
    base: Tensor
    joint_weights: Tensor

    def __init__(
        self, backbone: nn.Module, topology: BodyTopology, shape: MetroShape, channels: int, places: int
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_joints, self.mask_ratio = topology.num_joints, shape.mask_ratio
        sizes = [min(size, topology.num_vertices) for size in shape.levels if size < topology.num_vertices]
        order = farthest_vertices(topology.template_mm, max(sizes, default=0))  # a coarser choice begins a finer one
        self.level_indices = [torch.from_numpy(order[:size]) for size in sizes]
        self.level_indices.append(torch.arange(topology.num_vertices))
        template, mean = (self._with_joints(part, topology) for part in (topology.template_mm, topology.mean_mm))
        self.register_buffer("template", template, persistent=False)
        self.register_buffer("base", mean, persistent=False)
        self.register_buffer("joint_weights", torch.from_numpy(topology.joint_weights), persistent=False)
        tokens, width = len(template), shape.image_width or channels
        self.image = _Grid(channels, width, places, tokens) if shape.image_width else _Global(tokens)
        self.encoders = nn.Sequential(*_encoders(shape, tokens, width + 3))
        self.up = nn.ModuleList(
            _Refined(topology, fine.numpy(), coarse.numpy())
            for coarse, fine in zip(self.level_indices, self.level_indices[1:], strict=False)
        )
        self.camera = _CameraOf(tokens - self.num_joints, width)

    def forward(self, images: Tensor) -> Body:
        """Return the bodies in images (B, 3, size, size)."""
        features = self.image(self.backbone.forward_features(images))  # type: ignore[operator]
        tokens = torch.cat([self.template.expand(len(images), -1, -1), features], -1)
        points = self.base + _OUTPUT_SCALE * self.encoders(self._masked(tokens))
        joints, vertices = points[:, : self.num_joints], points[:, self.num_joints :]
        levels = [vertices]
        for up in self.up:
            levels.append(up(levels[-1]))
        return Body(joints, tuple(levels), self.camera(vertices, features.mean(1)))

    def joints_of(self, vertices: Tensor) -> Tensor:
        """Return the joints (B, J, 3) of a surface (B, V, 3)."""
        return self.joint_weights @ vertices

    def _masked(self, tokens: Tensor) -> Tensor:
        """Masked vertex modeling: each body loses a share of its tokens, drawn up to the ratio."""
        if not self.training or not self.mask_ratio:
            return tokens
        share = self.mask_ratio * torch.rand(len(tokens), 1, 1, device=tokens.device)
        lost = torch.rand(*tokens.shape[:2], 1, device=tokens.device) < share
        return torch.where(lost, _MASKED, tokens)

    def _with_joints(self, vertices_mm: Any, topology: BodyTopology) -> Tensor:
        """Return joints and coarsest vertices (tokens, 3) of a body in meters."""
        vertices = torch.from_numpy(vertices_mm) / 1000
        return torch.cat([torch.from_numpy(topology.joint_weights) @ vertices, vertices[self.level_indices[0]]])


class _Global(nn.Module):
    """The mean over all places, the same for each token: METRO's own."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, features: Tensor) -> Tensor:
        return features.mean((2, 3)).unsqueeze(1).expand(-1, self.tokens, -1)


class _Grid(nn.Module):
    """For each token a learned mixture of the places: a small model learns faster where things are."""

    def __init__(self, channels: int, width: int, places: int, tokens: int) -> None:
        super().__init__()
        self.narrow = nn.Linear(channels, width)
        self.mix = nn.Linear(places, tokens)

    def forward(self, features: Tensor) -> Tensor:
        mixed: Tensor = self.mix(self.narrow(features.flatten(2).transpose(1, 2)).transpose(1, 2))
        return mixed.transpose(1, 2)


class _Encoder(nn.Module):
    """A transformer encoder with a linear path around it.

    Args:
        shape: sizes.
        tokens: number of tokens.
        width: of the encoder.
        feedforward: hidden width of its feed-forward parts.
        sides: width of what comes and of what goes.
    """

    def __init__(self, shape: MetroShape, tokens: int, width: int, feedforward: int, sides: tuple[int, int]) -> None:
        super().__init__()
        before, after = sides
        self.embed = nn.Linear(before, width)
        self.position = nn.Parameter(torch.zeros(tokens, width))
        nn.init.normal_(self.position, std=0.02)
        self.drop = nn.Dropout(shape.dropout)
        self.layers = nn.ModuleList(_layer(shape, width, feedforward) for _ in range(shape.depth))
        self.head = nn.Linear(width, after)
        self.around = nn.Linear(before, after)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.drop(self.embed(tokens) + self.position)
        for layer in self.layers:
            hidden = layer(hidden)
        result: Tensor = self.head(hidden) + self.around(tokens)
        return result


def _encoders(shape: MetroShape, tokens: int, width: int) -> list[_Encoder]:
    befores, afters = [width, *shape.outputs], [*shape.outputs, 3]
    sizes = zip(shape.widths, shape.feedforward, befores, afters, strict=True)
    encoders = [_Encoder(shape, tokens, wide, hidden, (before, after)) for wide, hidden, before, after in sizes]
    for last in (encoders[-1].head, encoders[-1].around):  # training begins near the mean body
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)
    return encoders


def _layer(shape: MetroShape, width: int, feedforward: int) -> nn.TransformerEncoderLayer:
    layer = nn.TransformerEncoderLayer(
        width, shape.num_heads, feedforward, shape.dropout, "gelu", batch_first=True, norm_first=shape.norm_first
    )
    layer.self_attn.dropout = 0.0
    return layer


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
