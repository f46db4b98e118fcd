"""METRO, and the plain regression beside it, by name: what ``--model`` takes."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dropkey.data.body_source import BodyTopology
from dropkey.errors import ArgumentError, did_you_mean
from dropkey.models.timm_network import build_network
from dropkey.tasks.mesh.body_network import BodyNetwork, level_indices, with_joints
from dropkey.tasks.mesh.metro import Metro, MetroShape
from dropkey.tasks.mesh.regression import Regression

__all__ = ["MESH_TRANSFORMERS", "PRESETS", "Preset", "build_body_network", "named_preset"]

Predictor = Callable[[Tensor, MetroShape, int, int], Metro | Regression]


@dataclass(frozen=True)
class Preset:
    """A backbone and what makes points of its features.

    Args:
        backbone: timm name.
        shape: sizes of the transformer, and of the levels.
        arguments: of the backbone.
        predictor: from the template's points, the shape, channels and places of the features.
    """

    backbone: str
    shape: MetroShape
    arguments: Mapping[str, Any] = field(default_factory=dict)
    predictor: Predictor = Metro


# Sizes of the published code, whose BERT configuration sets depth, heads and feed-forward width.
_PUBLISHED = MetroShape(
    widths=(1024, 256, 128),
    outputs=(512, 128),
    depth=4,
    num_heads=4,
    feedforward=(3072, 3072, 3072),
    norm_first=False,
    dropout=0.1,
    mask_ratio=0.3,
    levels=(431, 1723),
    image_width=0,
)
_MINI = MetroShape(
    widths=(64, 32, 16),
    outputs=(32, 16),
    depth=2,
    num_heads=2,
    feedforward=(128, 64, 32),
    norm_first=True,
    dropout=0.0,
    mask_ratio=0.0,  # minutes of training are too short to learn to see around masked tokens
    levels=(128,),
    image_width=64,
)
_SMALL_RESNET = {"channels": (16, 32, 64, 128), "stem_type": "deep", "stem_width": 8}

PRESETS: dict[str, Preset] = {
    "metro_mini": Preset("resnet18", _MINI, _SMALL_RESNET),
    "regression_mini": Preset("resnet18", _MINI, _SMALL_RESNET, Regression),
    "metro_r50": Preset("resnet50", _PUBLISHED),
    "metro_hrnet_w64": Preset("hrnet_w64", _PUBLISHED),
}
MESH_TRANSFORMERS = tuple(name for name, preset in PRESETS.items() if preset.predictor is Metro)


def named_preset(name: str) -> Preset:
    """Return the preset called ``name``, or raise an ArgumentError with near matches."""
    if name not in PRESETS:
        raise ArgumentError(f"no mesh model {name!r}{did_you_mean(name, PRESETS)}; known: {', '.join(PRESETS)}")
    return PRESETS[name]


def build_body_network(
    name: str,
    topology: BodyTopology,
    img_size: int,
    *,
    mask_ratio: float,
    dropout: float,
    pretrained: bool = False,
) -> BodyNetwork:
    """Build what predicts bodies.

    Args:
        name: of a preset.
        topology: what the bodies have in common.
        img_size: side of the pictures in pixels.
        mask_ratio: largest share of tokens that are masked in training.
        dropout: of embeddings and of the outputs of attention and feed-forward.
        pretrained: start the backbone from timm's weights, which are downloaded.

    Raises:
        ArgumentError: no such preset, or pictures too small for its backbone.
        RunError: pretrained weights cannot be had.
    """
    preset = named_preset(name)
    shape = dataclasses.replace(preset.shape, mask_ratio=mask_ratio, dropout=dropout)
    backbone = build_network(preset.backbone, 0, pretrained=pretrained, **preset.arguments)
    channels, rows, cols = _feature_size(backbone, img_size)
    indices = level_indices(topology, shape.levels)
    template = with_joints(topology.template_mm, topology, indices[0])
    predictor = preset.predictor(template, shape, channels, rows * cols)
    return BodyNetwork(backbone, predictor, topology, indices, predictor.width)


@torch.no_grad()
def _feature_size(backbone: nn.Module, img_size: int) -> tuple[int, int, int]:
    if img_size < 32:
        raise ArgumentError(f"--img-size {img_size} is too small for a backbone that divides it by 32")
    device = next(backbone.parameters()).device
    training = backbone.training
    features = backbone.eval().forward_features(torch.zeros(1, 3, img_size, img_size, device=device))  # type: ignore[operator]
    backbone.train(training)
    channels, rows, cols = features.shape[1:]
    return int(channels), int(rows), int(cols)
