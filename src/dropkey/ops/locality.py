"""Locality self-attention: a learned temperature for every head, and no token that attends to itself."""

import torch
from torch import Tensor, nn

from dropkey.ops.call import AttentionCall

__all__ = ["Temperature", "without_diagonal"]


class Temperature(nn.Module):
    """A factor on the logits of every head, learned from 1: the temperature that a model comes with is kept at first.

    Args:
        num_heads: H.
        device: of the parameter.
        dtype: of the parameter.
    """

    def __init__(self, num_heads: int, device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(num_heads, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Return queries (B, H, N, D), or logits (B, H, Nq, Nk), times the factor of their head."""
        return x * self.gain.to(x.dtype)[:, None, None]


def without_diagonal(call: AttentionCall) -> AttentionCall:
    """Return a call in which no query sees the key of its own place, unless that is all it may see.

    Args:
        call: of self-attention, with as many queries as keys.
    """
    num_tokens = call.key.shape[2]
    itself = torch.eye(num_tokens, dtype=torch.bool, device=call.query.device)[None, None]
    allowed, bias = call.allowed(), call.attn_bias
    others = ~itself if allowed is None else allowed & ~itself
    hidden = itself & others.any(-1, keepdim=True)
    if bias is None or bias.dtype == torch.bool:
        return call._replace(attn_bias=~hidden if bias is None else bias & ~hidden)
    return call._replace(attn_bias=torch.where(hidden, -torch.inf, bias))
