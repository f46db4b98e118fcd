"""One self-attention with its linear layers, as every backend receives it: what the token pattern leaves to compute."""

from typing import NamedTuple

from torch import Tensor

__all__ = ["Projection"]


class Projection(NamedTuple):
    """A module's input and weights, from the layer before the attention to the one after it."""

    x: Tensor  # (B, N, C)
    weight: Tensor  # (3 * H * D, C): rows for query, key and value
    bias: Tensor | None  # (3 * H * D,)
    out_weight: Tensor  # (C', H * D), of the layer that follows the attention
    out_bias: Tensor | None  # (C',)
    num_heads: int  # H
    scale: float  # factor of the logits, positive
