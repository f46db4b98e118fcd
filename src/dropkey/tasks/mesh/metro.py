"""METRO: a transformer over joints and vertices, each a token beside a feature of the image."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Metro", "MetroShape"]

_MASKED = 0.01  # what stands in a masked token


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
    """Predict joints and coarse vertices from the features of a backbone.

    Args:
        template: (tokens, 3) joints and coarse vertices of a body at rest, in meters.
        shape: sizes.
        channels: C of the features.
        places: rows x cols of the features; needed where the shape has an ``image_width``.

    Source: Lin et al., End-to-End Human Pose and Mesh Reconstruction with Transformers, CVPR 2021. Departures: coarse
    vertices are a choice of the surface's, where METRO takes a mesh made for SMPL; the camera follows from the image
    too, since bodies need not stand in its middle; and the encoders leave out what BERT brings along unused (word
    embeddings, poolers: 45 M parameters).
    """

    template: Tensor

    def __init__(self, template: Tensor, shape: MetroShape, channels: int, places: int) -> None:
        super().__init__()
        self.register_buffer("template", template, persistent=False)
        self.mask_ratio = shape.mask_ratio
        tokens, self.width = len(template), shape.image_width or channels
        self.image = _Grid(channels, self.width, places, tokens) if shape.image_width else _Global(tokens)
        self.encoders = nn.Sequential(*_encoders(shape, tokens, self.width + 3))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return offsets (B, tokens, 3) and a feature of the picture (B, width), of features (B, C, rows, cols)."""
        image = self.image(features)
        tokens = torch.cat([self.template.expand(len(features), -1, -1), image], -1)
        return self.encoders(self._masked(tokens)), image.mean(1)

    def _masked(self, tokens: Tensor) -> Tensor:
        """Masked vertex modeling: each body loses a share of its tokens, drawn up to the ratio."""
        if not self.training or not self.mask_ratio:
            return tokens
        share = self.mask_ratio * torch.rand(len(tokens), 1, 1, device=tokens.device)
        lost = torch.rand(*tokens.shape[:2], 1, device=tokens.device) < share
        return torch.where(lost, _MASKED, tokens)


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
