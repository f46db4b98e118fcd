"""The backend's operators as torch knows them: what they return, and that one is the gradient of the other.

They are operators, so that a compiled graph holds them whole, with the drop ratio and the seed as inputs.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["backward", "forward", "window_bits"]


def _empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return an empty (B, H, N, D) laid out as (B, N, H, D), so that models merge the heads without a copy."""
    batch, num_heads, num_tokens, dim = shape
    return like.new_empty((batch, num_tokens, num_heads, dim)).transpose(1, 2)


def _empty_forward(query: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    out = _empty((*query.shape[:3], value.shape[-1]), query)
    return out, query.new_empty((3, *query.shape[:3]), dtype=torch.float32)


def _empty_backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(_empty(tensor.shape, tensor) for tensor in tensors)


@torch.library.custom_op("dropkey::triton_window_bits", mutates_args=())
def window_bits(
    drop_ratio: Tensor,
    seed: Tensor,
    batch: int,
    num_heads: int,
    num_queries: int,
    num_keys: int,
    grid_size: list[int],
    window_size: int,
    stream: int,
    is_cross: bool,
) -> Tensor:
    """Return the keep bits of "block" or "cross", uint8 (B, H, Nq, ceil(Nk / 8)), lowest bit first."""
    from dropkey.ops.triton.windows import fill_window_bits

    kept = _empty_bits(seed, batch, num_heads, num_queries, num_keys)
    rows, cols = grid_size
    fill_window_bits(kept, drop_ratio, seed, num_keys, (rows, cols), window_size, stream, is_cross)
    return kept


def _empty_bits(seed: Tensor, batch: int, num_heads: int, num_queries: int, num_keys: int) -> Tensor:
    return seed.new_empty((batch, num_heads, num_queries, (num_keys + 7) // 8), dtype=torch.uint8)


@window_bits.register_fake
def _(drop_ratio: Tensor, seed: Tensor, batch: int, num_heads: int, num_queries: int, num_keys: int, *_: Any) -> Tensor:
    return _empty_bits(seed, batch, num_heads, num_queries, num_keys)


@torch.library.custom_op("dropkey::triton_forward", mutates_args=())
def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_bias: Tensor | None,
    kept: Tensor | None,
    drop_ratio: Tensor,
    seed: Tensor,
    pattern: str,
    is_causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Return the output (B, H, Nq, Dv) and the row statistics (3, B, H, Nq) that backward needs.

    ``kept`` is, for "token", bool (B, Nk); for "block" and "cross", packed bits (B, H, Nq, ceil(Nk / 8)); else None.
    """
    from dropkey.ops.triton.launch import Launch, launch_forward

    out, row_stats = _empty_forward(query, value)
    launch = Launch(query, key, value, attn_bias, kept, drop_ratio, seed, pattern, is_causal, scale)
    launch_forward(launch, out, row_stats)
    return out, row_stats


@forward.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _empty_forward(query, value)


@torch.library.custom_op("dropkey::triton_backward", mutates_args=())
def backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_bias: Tensor | None,
    kept: Tensor | None,
    drop_ratio: Tensor,
    seed: Tensor,
    pattern: str,
    is_causal: bool,
    scale: float,
    out: Tensor,
    row_stats: Tensor,
    grad_out: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value."""
    from dropkey.ops.triton.launch import Launch, launch_backward

    grads = _empty_backward(query, key, value)
    launch = Launch(query, key, value, attn_bias, kept, drop_ratio, seed, pattern, is_causal, scale)
    launch_backward(launch, out, row_stats, grad_out, *grads)
    return grads[0], grads[1], grads[2]


@backward.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return _empty_backward(query, key, value)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, pattern, is_causal, scale = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.options = (pattern, is_causal, scale)


def _differentiate(ctx: Any, grad_out: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, out, row_stats = ctx.saved_tensors
    grads = backward(*tensors, *ctx.options, out, row_stats, grad_out)
    return (*grads, *(None,) * 7)


forward.register_autograd(_differentiate, setup_context=_save)
