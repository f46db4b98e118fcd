"""What the kernels write to: empty tensors, laid out as models want to have them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dropkey.ops.layout_of_output import output_strides

__all__ = ["empty_backward", "empty_bits", "empty_forward"]


def _empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return an empty (B, H, N, D) laid out as (B, N, H, D), so that models merge the heads without a copy."""
    batch, num_heads, num_tokens, dim = shape
    return like.new_empty((batch, num_tokens, num_heads, dim)).transpose(1, 2)


def empty_forward(query: Tensor, value: Tensor, is_stored: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output (B, H, Nq, Dv), row statistics (3, B, H, Nq), and room for the keep bits if they are stored."""
    batch, num_heads, num_queries, _ = query.shape
    sizes = batch, num_heads, num_queries, value.shape[-1]
    out = query.new_empty_strided(sizes, output_strides(sizes, query.shape, query.stride()))
    row_stats = query.new_empty((3, batch, num_heads, num_queries), dtype=torch.float32)
    bits = empty_bits(query, batch, num_heads, num_queries, value.shape[2]) if is_stored else _no_bits(query)
    return out, row_stats, bits


def empty_backward(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return room for the gradients of query, key and value."""
    return _empty(query.shape, query), _empty(key.shape, key), _empty(value.shape, value)


def empty_bits(like: Tensor, batch: int, num_heads: int, num_queries: int, num_keys: int) -> Tensor:
    """Return room for keep bits, uint8 (B, H, Nq, ceil(Nk / 8))."""
    return like.new_empty((batch, num_heads, num_queries, (num_keys + 7) // 8), dtype=torch.uint8)


def _no_bits(like: Tensor) -> Tensor:
    return like.new_empty((0,), dtype=torch.uint8)
