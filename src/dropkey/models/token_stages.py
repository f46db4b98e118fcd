"""The two token transformers of T2T-ViT's tokens-to-token module: one head, few channels, thousands of tokens.

Both take (B, N, dim) and return (B, N, out_dim): attention whose skip connection is the value, then an MLP. DropKey
stays out of both. A Performer has no softmax over keys; the Transformer's keys are overlapping pieces of the image, not
yet the tokens that the papers drop. Its class is named in the handle's table as not reached, and ``dropkey.register``
makes it known to those who want it.
"""

import math
from typing import Any

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["TokenAttention", "TokenPerformer", "TokenTransformer"]

_SMALLEST_SUM = 1e-8


class TokenAttention(nn.Module):
    """One-head attention with other output than input channels; ``out = value + proj(attention)``.

    The scale is ``dim ** -0.5`` with the input's channels, not the head's: as released.
    """

    def __init__(self, dim: int, out_dim: int, **factory: Any) -> None:
        super().__init__()
        self.scale = dim**-0.5
        self.qkv = nn.Linear(dim, 3 * out_dim, bias=False, **factory)
        self.proj = nn.Linear(out_dim, out_dim, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, dim) to (B, N, out_dim)."""
        q, k, v = self.qkv(x).unsqueeze(1).chunk(3, dim=-1)  # (B, 1, N, out_dim) each
        out = scaled_dot_product_attention(q, k, v, scale=self.scale)
        skipped: Tensor = v.squeeze(1) + self.proj(out.squeeze(1))
        return skipped


class TokenTransformer(nn.Module):
    """Pre-norm attention and MLP of the t_ variants."""

    def __init__(self, dim: int, out_dim: int, **factory: Any) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, **factory)
        self.attn = TokenAttention(dim, out_dim, **factory)
        self.norm2 = nn.LayerNorm(out_dim, **factory)
        self.mlp = Mlp(out_dim, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, dim) to (B, N, out_dim)."""
        x = self.attn(self.norm1(x))
        mixed: Tensor = x + self.mlp(self.norm2(x))
        return mixed


class TokenPerformer(nn.Module):
    """Linear attention by positive random features, then an MLP; memory linear in the number of tokens.

        phi(x) = exp(w x - |x|^2 / 2) / sqrt(m)        w: m orthogonal random directions, never trained
        out    = phi(q) (phi(k)^T v) / (phi(q) sum(phi(k)))

    Dropout 0.1 after the projection and after the MLP belongs to the stage, whatever the model's rates: as released.
    """

    def __init__(
        self, dim: int, out_dim: int, kernel_ratio: float = 0.5, proj_drop: float = 0.1, **factory: Any
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, **factory)
        self.kqv = nn.Linear(dim, 3 * out_dim, **factory)
        num_features = int(out_dim * kernel_ratio)
        self.w = nn.Parameter(torch.empty(num_features, out_dim, **factory), requires_grad=False)
        self.proj = nn.Linear(out_dim, out_dim, **factory)
        self.proj_drop = nn.Dropout(proj_drop)
        self.norm2 = nn.LayerNorm(out_dim, **factory)
        self.mlp = Mlp(out_dim, drop=(0.0, proj_drop), **factory)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the random directions; the layers inside reset themselves."""
        nn.init.orthogonal_(self.w, gain=math.sqrt(len(self.w)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, dim) to (B, N, out_dim)."""
        k, q, v = self.kqv(self.norm1(x)).chunk(3, dim=-1)
        x = v + self.proj_drop(self.proj(self._attend(q, k, v).to(v.dtype)))
        mixed: Tensor = x + self.mlp(self.norm2(x))
        return mixed

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with torch.autocast(q.device.type, enabled=False):  # exponentials leave the range of half precision
            q, k = self._features(q), self._features(k)
            v = v.to(q.dtype)
            sums = q @ k.sum(dim=1).unsqueeze(-1)  # (B, N, 1)
            return q @ (k.mT @ v) / (sums + _SMALLEST_SUM)

    def _features(self, x: Tensor) -> Tensor:
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        squares = x.square().sum(-1, keepdim=True) / 2
        return torch.exp(x @ self.w.to(x.dtype).mT - squares) / math.sqrt(len(self.w))
