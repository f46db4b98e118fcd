"""The backend's operators as torch knows them: what they return, and that one is the gradient of the other.

They are operators, so that a compiled graph holds them whole, with the drop ratio and the seed as inputs.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dropkey.ops.layout_of_output import empty_output
from dropkey.ops.triton.door import check_attention, check_backward
from dropkey.ops.triton.tiles import IS_TESTING

__all__ = ["backward", "element_bits", "forward", "kept_tokens", "window_bits"]


def _empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return an empty (B, H, N, D) laid out as (B, N, H, D), so that models merge the heads without a copy."""
    batch, num_heads, num_tokens, dim = shape
    return like.new_empty((batch, num_tokens, num_heads, dim)).transpose(1, 2)


def _empty_forward(query: Tensor, value: Tensor, is_stored: bool) -> tuple[Tensor, Tensor, Tensor]:
    batch, num_heads, num_queries, _ = query.shape
    out = empty_output(query, batch, num_heads, num_queries, value.shape[-1])
    row_stats = query.new_empty((3, batch, num_heads, num_queries), dtype=torch.float32)
    bits = _empty_bits(query, batch, num_heads, num_queries, value.shape[2]) if is_stored else _no_bits(query)
    return out, row_stats, bits


def _empty_backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(_empty(tensor.shape, tensor) for tensor in tensors)


def _empty_bits(like: Tensor, batch: int, num_heads: int, num_queries: int, num_keys: int) -> Tensor:
    return like.new_empty((batch, num_heads, num_queries, (num_keys + 7) // 8), dtype=torch.uint8)


def _no_bits(like: Tensor) -> Tensor:
    return like.new_empty((0,), dtype=torch.uint8)


@torch.library.custom_op("dropkey::triton_element_bits", mutates_args=())
def element_bits(
    drop_ratio: Tensor, seed: Tensor, batch: int, num_heads: int, num_queries: int, num_keys: int
) -> Tensor:
    """Return the keep bits of "element", uint8 (B, H, Nq, ceil(Nk / 8)), lowest bit first."""
    from dropkey.ops.triton.launch import threshold_of
    from dropkey.ops.triton.windows import fill_element_bits

    kept = _empty_bits(seed, batch, num_heads, num_queries, num_keys)
    fill_element_bits(kept, threshold_of(drop_ratio), seed, num_keys)
    return kept


@element_bits.register_fake
def _(drop_ratio: Tensor, seed: Tensor, batch: int, num_heads: int, num_queries: int, num_keys: int) -> Tensor:
    return _empty_bits(seed, batch, num_heads, num_queries, num_keys)


@torch.library.custom_op("dropkey::triton_kept_tokens", mutates_args=())
def kept_tokens(drop_ratio: Tensor, seed: Tensor, batch: int, num_heads: int, num_keys: int) -> Tensor:
    """Return which keys "token" keeps, bool (B, Nk)."""
    from dropkey.ops.triton.tokens import fill_kept_tokens

    kept = seed.new_empty((batch, num_keys), dtype=torch.bool)
    fill_kept_tokens(kept, drop_ratio, seed, num_heads)
    return kept


@kept_tokens.register_fake
def _(drop_ratio: Tensor, seed: Tensor, batch: int, num_heads: int, num_keys: int) -> Tensor:
    return seed.new_empty((batch, num_keys), dtype=torch.bool)


@torch.library.custom_op("dropkey::triton_window_bits", mutates_args=())
def window_bits(
    drop_ratio: Tensor,
    seed_threshold: Tensor,
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
    from dropkey.ops.triton.launch import threshold_of
    from dropkey.ops.triton.windows import fill_window_bits

    kept = _empty_bits(seed, batch, num_heads, num_queries, num_keys)
    rows, cols = grid_size
    of_seeds = seed_threshold if seed_threshold.is_cuda else int(seed_threshold)
    fill_window_bits(
        kept, threshold_of(drop_ratio), of_seeds, seed, num_keys, (rows, cols), window_size, stream, is_cross
    )
    return kept


@window_bits.register_fake
def _(
    drop_ratio: Tensor,
    seed_threshold: Tensor,
    seed: Tensor,
    batch: int,
    num_heads: int,
    num_queries: int,
    num_keys: int,
    *_: Any,
) -> Tensor:
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
    is_stored: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output (B, H, Nq, Dv), row statistics (3, B, H, Nq) and keep bits that backward needs.

    ``kept`` is, for "token", bool (B, Nk); for "block", "cross" and "bits", packed bits (B, H, Nq, ceil(Nk / 8)); else
    None. ``is_stored``: return the bits that "element" draws, so that backward need not draw them again; else the
    tensor of bits is empty.
    """
    from dropkey.ops.triton import self_test, written_out
    from dropkey.ops.triton.launch import Inputs, Launch, launch_forward

    check_attention(query, key, value, attn_bias, kept, drop_ratio, seed, pattern)
    out, row_stats, bits = _empty_forward(query, value, is_stored)
    inputs = Inputs(query, key, value, attn_bias, kept, drop_ratio, seed, pattern, is_causal, scale)
    if not IS_TESTING or self_test.why_unsound(inputs, is_stored) is None:
        launch_forward(Launch(inputs), out, row_stats, bits if is_stored else None)
    else:
        written_out.forward(inputs, out)
    return out, row_stats, bits


@forward.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_forward(query, value, rest[-1])


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
    is_stored: bool,
    out: Tensor,
    row_stats: Tensor,
    bits: Tensor,
    grad_out: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value."""
    from dropkey.ops.triton import self_test, written_out
    from dropkey.ops.triton.launch import Inputs, Launch, launch_backward

    check_attention(query, key, value, attn_bias, kept, drop_ratio, seed, pattern)
    check_backward(query, value, out, row_stats, grad_out)
    grads = _empty_backward(query, key, value)
    inputs = Inputs(query, key, value, attn_bias, kept, drop_ratio, seed, pattern, is_causal, scale)
    if not IS_TESTING or self_test.why_unsound(inputs, is_stored) is None:
        drawn = inputs._replace(kept=bits, pattern="bits") if is_stored else inputs
        launch_backward(Launch(drawn), out, row_stats, grad_out, *grads)
    else:
        written_out.backward(inputs, grad_out, *grads)
    return grads[0], grads[1], grads[2]


@backward.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return _empty_backward(query, key, value)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, pattern, is_causal, scale, is_stored = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1], output[2])
    ctx.options = (pattern, is_causal, scale, is_stored)


def _differentiate(ctx: Any, grad_out: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, out, row_stats, bits = ctx.saved_tensors
    grads = backward(*tensors, *ctx.options, out, row_stats, bits, grad_out)
    return (*grads, *(None,) * 8)


forward.register_autograd(_differentiate, setup_context=_save)
