"""Families of torch.nn and torchvision."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.swin_transformer import (
    PatchMergingV2,
    SwinTransformer,
    SwinTransformerBlockV2,
)

from dropkey.catalogue.family import Family, images

__all__ = ["TORCH_FAMILIES"]

_SWIN: dict[str, Any] = {
    "patch_size": [4, 4],
    "embed_dim": 16,
    "depths": [2, 2],
    "num_heads": [1, 2],
    "window_size": [4, 4],
    "num_classes": 3,
}


def _layers(name: str, small: Callable[[], nn.Module], **sizes: tuple[int, ...]) -> Family:
    return Family(name, "torch.nn", name, full=small, small=small, inputs=lambda: _sequences(sizes))


def _sequences(sizes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(*size, generator=generator) for name, size in sizes.items()}


def _vision(name: str, public: str, small: Callable[[], nn.Module], size: int) -> Family:
    full = partial(torchvision.models.get_model, public)
    return Family(name, "torchvision", public, full=full, small=small, inputs=lambda: {"": images(size)})


def _encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True), 2)


def _decoder() -> nn.Module:
    return nn.TransformerDecoder(nn.TransformerDecoderLayer(16, 2, 32, dropout=0.0, batch_first=True), 2)


TORCH_FAMILIES = [
    _layers(
        "nn.MultiheadAttention",
        partial(nn.MultiheadAttention, 16, 2, kdim=12, vdim=20),
        query=(5, 2, 16),
        key=(7, 2, 12),
        value=(7, 2, 20),
    ),
    _layers("nn.TransformerEncoder", _encoder, src=(2, 6, 16)),
    _layers("nn.TransformerDecoder", _decoder, tgt=(2, 5, 16), memory=(2, 6, 16)),
    _layers(
        "nn.Transformer",
        partial(nn.Transformer, 16, 2, 2, 2, 32, 0.0, batch_first=True),
        src=(2, 6, 16),
        tgt=(2, 5, 16),
    ),
    _vision("ViT", "vit_b_16", partial(torchvision.models.VisionTransformer, 32, 8, 2, 2, 16, 32, num_classes=3), 32),
    _vision("Swin", "swin_t", partial(SwinTransformer, **_SWIN), 32),
    _vision(
        "Swin v2",
        "swin_v2_t",
        partial(SwinTransformer, **_SWIN, block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2),
        32,
    ),
    _vision("MaxViT", "maxvit_t", partial(torchvision.models.MaxVit, (64, 64), 16, 2, [16, 32], [1, 1], 8, 0.1), 64),
]
