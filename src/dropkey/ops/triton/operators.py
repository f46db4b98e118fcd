"""The backend's operators as torch knows them: what they return, and that one is the gradient of the other.

They are operators, so that a compiled graph holds them whole, with the drop ratio and the seed as inputs. Autograd's
formula is written out: torch's ``custom_op`` takes half a millisecond more per call, longer than the kernels.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dropkey.ops.saved_tensors import LAYOUT_TAGS, as_bits, check_transforms, final, from_bits, of_type
from dropkey.ops.transforms import saving_hooks
from dropkey.ops.triton.door import check_attention, check_backward
from dropkey.ops.triton.outputs import empty_backward, empty_bits, empty_forward
from dropkey.ops.triton.tiles import IS_TESTING

__all__ = ["backward", "element_bits", "forward", "kept_tokens", "window_bits"]


_INPUTS = (
    "Tensor query, Tensor key, Tensor value, Tensor? attn_bias, Tensor? kept, Tensor drop_ratio, Tensor seed, "
    "str pattern, bool is_causal, float scale, bool is_stored"
)
_MASK = "Tensor seed, SymInt batch, SymInt num_heads, SymInt num_queries, SymInt num_keys"
_SCHEMAS = {
    "triton_forward": f"({_INPUTS}) -> (Tensor, Tensor, Tensor)",
    "triton_backward": f"({_INPUTS}, Tensor out, Tensor row_stats, Tensor bits, Tensor grad_out) "
    "-> (Tensor, Tensor, Tensor)",
    "triton_kept_tokens": "(Tensor drop_ratio, Tensor seed, SymInt batch, SymInt num_heads, SymInt num_keys) -> Tensor",
    "triton_element_bits": f"(Tensor drop_ratio, {_MASK}) -> Tensor",
    "triton_window_bits": f"(Tensor drop_ratio, Tensor seed_threshold, {_MASK}, SymInt[] grid_size, int window_size, "
    "int stream, bool is_cross) -> Tensor",
}
_NO_SECOND = "backend 'triton' has no second derivative; use backend='reference'"

_library: Any = torch.library.Library("dropkey", "FRAGMENT")  # type: ignore[no-untyped-call]
for _name, _schema in _SCHEMAS.items():
    _library.define(_name + _schema, tags=LAYOUT_TAGS)

forward = torch.ops.dropkey.triton_forward.default
backward = torch.ops.dropkey.triton_backward.default
kept_tokens = torch.ops.dropkey.triton_kept_tokens.default
element_bits = torch.ops.dropkey.triton_element_bits.default
window_bits = torch.ops.dropkey.triton_window_bits.default


def _element_bits(
    drop_ratio: Tensor, seed: Tensor, batch: int, num_heads: int, num_queries: int, num_keys: int
) -> Tensor:
    """Return the keep bits of "element", uint8 (B, H, Nq, ceil(Nk / 8)), lowest bit first."""
    from dropkey.ops.triton.launch import threshold_of
    from dropkey.ops.triton.windows import fill_element_bits

    kept = empty_bits(seed, batch, num_heads, num_queries, num_keys)
    fill_element_bits(kept, threshold_of(drop_ratio), seed, num_keys)
    return kept


def _element_bits_fake(
    drop_ratio: Tensor, seed: Tensor, batch: int, num_heads: int, num_queries: int, num_keys: int
) -> Tensor:
    return empty_bits(seed, batch, num_heads, num_queries, num_keys)


def _kept_tokens(drop_ratio: Tensor, seed: Tensor, batch: int, num_heads: int, num_keys: int) -> Tensor:
    """Return which keys "token" keeps, bool (B, Nk)."""
    from dropkey.ops.triton.tokens import fill_kept_tokens

    kept = _kept_tokens_fake(drop_ratio, seed, batch, num_heads, num_keys)
    fill_kept_tokens(kept, drop_ratio, seed, num_heads)
    return kept


def _kept_tokens_fake(drop_ratio: Tensor, seed: Tensor, batch: int, num_heads: int, num_keys: int) -> Tensor:
    return seed.new_empty((batch, num_keys), dtype=torch.bool)


def _window_bits(
    drop_ratio: Tensor,
    seed_threshold: Tensor,
    seed: Tensor,
    batch: int,
    num_heads: int,
    num_queries: int,
    num_keys: int,
    grid_size: Sequence[int],
    window_size: int,
    stream: int,
    is_cross: bool,
) -> Tensor:
    """Return the keep bits of "block" or "cross", uint8 (B, H, Nq, ceil(Nk / 8)), lowest bit first."""
    from dropkey.ops.triton.launch import threshold_of
    from dropkey.ops.triton.windows import fill_window_bits

    kept = empty_bits(seed, batch, num_heads, num_queries, num_keys)
    rows, cols = grid_size
    of_seeds = seed_threshold if seed_threshold.is_cuda else int(seed_threshold)
    fill_window_bits(
        kept, threshold_of(drop_ratio), of_seeds, seed, num_keys, (rows, cols), window_size, stream, is_cross
    )
    return kept


def _window_bits_fake(
    drop_ratio: Tensor,
    seed_threshold: Tensor,
    seed: Tensor,
    batch: int,
    num_heads: int,
    num_queries: int,
    num_keys: int,
    *_: Any,
) -> Tensor:
    return empty_bits(seed, batch, num_heads, num_queries, num_keys)


def _forward(
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
    out, row_stats, bits = empty_forward(query, value, is_stored)
    inputs = Inputs(query, key, value, attn_bias, kept, drop_ratio, seed, pattern, is_causal, scale)
    if not IS_TESTING or self_test.why_unsound(inputs, is_stored) is None:
        launch_forward(Launch(inputs), out, row_stats, bits if is_stored else None)
    else:
        written_out.forward(inputs, out)
    return out, row_stats, bits


def _forward_fake(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return empty_forward(query, value, rest[-1])


def _backward(
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
    grads = empty_backward(query, key, value)
    inputs = Inputs(query, key, value, attn_bias, kept, drop_ratio, seed, pattern, is_causal, scale)
    if not IS_TESTING or self_test.why_unsound(inputs, is_stored) is None:
        drawn = inputs._replace(kept=bits, pattern="bits") if is_stored else inputs
        launch_backward(Launch(drawn), out, row_stats, grad_out, *grads)
    else:
        written_out.backward(inputs, grad_out, *grads)
    return grads


def _backward_fake(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return empty_backward(query, key, value)


class _Attention(torch.autograd.Function):
    """Says that one operator is the gradient of the other."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            out, row_stats, bits = forward(*inputs)
        query, key, value, attn_bias, kept, drop_ratio, seed, *ctx.options = inputs
        ctx.dtype = None if saving_hooks() is None else query.dtype
        exact = (row_stats, drop_ratio) if ctx.dtype is None else (as_bits(row_stats), as_bits(drop_ratio))
        ctx.save_for_backward(query, key, value, attn_bias, kept, seed, out, bits, *exact)
        ctx.mark_non_differentiable(row_stats, bits)
        ctx.set_materialize_grads(False)
        return out, row_stats, bits

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if grad_out is None:
            return (None,) * 11
        query, key, value, attn_bias, kept, seed, out, bits, row_stats, ratio = ctx.saved_tensors
        if ctx.dtype is not None:  # hooks may have handed tensors on in another type
            query, key, value, out, grad_out = of_type(ctx.dtype, query, key, value, out, grad_out)
            row_stats, ratio = from_bits(row_stats), from_bits(ratio)
        tensors = (query, key, value, attn_bias, kept, ratio, seed)
        grads = backward(*tensors, *ctx.options, out, row_stats, bits, grad_out)
        return (*final(grads, grad_out, query, key, value, message=_NO_SECOND), *(None,) * 8)


def _attach(query: Tensor, key: Tensor, value: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    check_transforms("triton")
    if torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad):
        outputs: tuple[Tensor, Tensor, Tensor] = _Attention.apply(query, key, value, *others)
    else:
        with torch._C._AutoDispatchBelowAutograd():
            outputs = forward(query, key, value, *others)
    return outputs


_PARTS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "triton_forward": (_forward, _forward_fake),
    "triton_backward": (_backward, _backward_fake),
    "triton_kept_tokens": (_kept_tokens, _kept_tokens_fake),
    "triton_element_bits": (_element_bits, _element_bits_fake),
    "triton_window_bits": (_window_bits, _window_bits_fake),
}
for _name, (_real, _fake) in _PARTS.items():
    for _device in ("CUDA", "CPU"):  # the CPU is for Triton's interpreter
        _library.impl(_name, _real, _device)
    torch.library.register_fake(f"dropkey::{_name}", _fake, lib=_library)
_library.impl("triton_forward", _attach, "Autograd")
