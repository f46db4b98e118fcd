"""Packed keep bits of the structured patterns."""

from torch import Tensor

from dropkey.ops.call import Draw

__all__ = ["window_bits"]


def window_bits(draw: Draw, batch: int, num_heads: int, num_queries: int, num_keys: int) -> Tensor:
    import torch
    keep = draw.keep(batch, num_heads, num_queries, num_keys).expand(batch, num_heads, num_queries, num_keys)
    keep = torch.nn.functional.pad(keep, (0, -num_keys % 8)).unflatten(-1, (-1, 8))
    return (keep.to(torch.uint8) << torch.arange(8, dtype=torch.uint8)).sum(-1, dtype=torch.uint8)
