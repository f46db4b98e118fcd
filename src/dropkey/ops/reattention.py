"""Re-attention: attention maps mixed over the heads and normalized, so that deep blocks do not all see the same.

    maps[h] = norm_h(sum over g of theta[h, g] * attn[g] + bias[h])        then  out = maps @ value

The maps are neither non-negative nor do their rows sum to 1. Source: Zhou et al., DeepViT, 2021 (arXiv 2103.11886).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from dropkey.errors import ArgumentError, did_you_mean
from dropkey.ops.statistics import normalize_once

__all__ = ["NORMS", "GatedHeadMixing", "HeadMixing", "check_norm", "mix_heads"]

NORMS = ("batch", "layer")


def mix_heads(attn: Tensor, theta: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return maps that are linear combinations of the heads' maps.

    Args:
        attn: (B, H, Nq, Nk).
        theta: (Hout, H); row h holds what map h takes from every head.
        bias: (Hout,), added to every weight of a map.

    Returns:
        (B, Hout, Nq, Nk).

    Example:
        >>> swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> mix_heads(torch.tensor([1.0, 2.0]).view(1, 2, 1, 1), swap).flatten().tolist()
        [2.0, 1.0]
    """
    return conv2d(attn, theta[:, :, None, None], bias)


class HeadMixing(nn.Module):
    """Mix attention maps over the heads, then normalize: DeepViT's transform with its parameters.

    Args:
        num_heads: H, of the maps.
        norm: "batch" for the authors' form, a 1x1 convolution with bias and torch's default initialization followed by
            batch normalization of every head; "layer" for the form of popular reimplementations, a matrix without bias,
            normally initialized, followed by layer normalization over the heads at every (query, key).

    Raises:
        ArgumentError: another norm.

    Source: the authors' released code; the paper's text has the matrix without bias.
    """

    def __init__(
        self,
        num_heads: int,
        norm: str = "batch",
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        is_batch = check_norm(norm) == "batch"
        self.theta = nn.Conv2d(num_heads, num_heads, 1, bias=is_batch, device=device, dtype=dtype)
        norm_class = nn.BatchNorm2d if is_batch else nn.LayerNorm
        self.norm: nn.Module = norm_class(num_heads, device=device, dtype=dtype)
        if not is_batch:
            nn.init.normal_(self.theta.weight)

    def forward(self, attn: Tensor) -> Tensor:
        """Return the mixed maps (B, H, Nq, Nk) of attention weights of that shape, in the parameters' dtype."""
        weight, bias = self.theta.weight, self.theta.bias
        maps = mix_heads(attn.to(weight.dtype), weight.flatten(1), bias)
        if isinstance(self.norm, nn.LayerNorm):
            normalized = self.norm(maps.movedim(1, -1))
            assert isinstance(normalized, Tensor)
            return normalized.movedim(-1, 1)
        return normalize_once(self.norm, maps)


class GatedHeadMixing(HeadMixing):
    """Give the change that Re-attention makes, times a learned gate that starts at 0: a model converts without a jump.

    attn + change is attn + gate * (mixed - attn). While the gate is 0 the change is exactly 0, in training too, and
    only the gate has a gradient.
    """

    def __init__(
        self,
        num_heads: int,
        norm: str = "batch",
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_heads, norm, device=device, dtype=dtype)
        self.gate = nn.Parameter(torch.zeros(1, device=device, dtype=dtype))  # not (): FSDP2 takes no scalars

    def forward(self, attn: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Return the change (B, H, Nq, Nk) of attention weights of that shape.

        Args:
            attn: attention weights.
            allowed: bool, broadcastable; a forbidden key (False) is not changed: its weight stays 0.
        """
        change = self.gate * (super().forward(attn) - attn)
        return change if allowed is None else change.where(allowed, 0)


def check_norm(norm: str) -> str:
    """Return ``norm``, or raise an ArgumentError if Re-attention has no norm of that name."""
    if norm not in NORMS:
        hint = did_you_mean(str(norm), NORMS)
        raise ArgumentError(f"unknown norm {norm!r} for Re-attention{hint}; known: {', '.join(NORMS)}")
    return norm
