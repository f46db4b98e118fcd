"""Self-attention with its linear layers, over chosen tokens: what the token pattern leaves to compute, as one node.

Composed of torch's own functions it would move much memory to compute little: chosen rows are gathered, biases copied
and summed, gradients of key and value put together, and the gradient of x added up row by row.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dropkey.errors import BackendError
from dropkey.ops.cpu.door import PROJECTION_LAYOUT, check_numbers, check_whole
from dropkey.ops.cpu.library import kernel
from dropkey.ops.cpu.operators import NO_SECOND
from dropkey.ops.projection import Projection
from dropkey.ops.saved_tensors import as_bits, check_transforms, final, from_bits, of_type

__all__ = ["attend_projected", "why_not_projected"]

_STEP = 16  # the kernel reads rows in whole groups of so many values
_LAYERS = ("x", "weight", "bias", "out_weight", "out_bias")
_BETWEEN = ("kept", "query", "kv", "out", "sums", "y", "panels", "grad_y", "grad_query", "grad_kv")
_NAMES = (*_LAYERS, *_BETWEEN, *(f"grad of {name}" for name in _LAYERS))
_TENSORS = 21  # of a call, in the order of the kernel's own list


def why_not_projected(projection: Projection) -> str | None:
    """Return why ``attend_projected`` does not take tokens and weights of these types and sizes, or None."""
    x, weight, out_weight = projection.x, projection.weight, projection.out_weight
    if x.device.type != "cpu":
        return f"tensors are on {x.device.type}"
    if not x.dtype == weight.dtype == out_weight.dtype == torch.float32:
        return f"dtypes are {x.dtype}, {weight.dtype} and {out_weight.dtype}, not float32"
    if not x.numel():
        return "there are no tokens"
    sizes = (x.shape[2], weight.shape[0] // 3 // projection.num_heads, out_weight.shape[0])
    return f"sizes {sizes} are not all multiples of {_STEP}" if any(size % _STEP for size in sizes) else None


def attend_projected(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out_weight: Tensor,
    out_bias: Tensor | None,
    rows: Tensor,
    num_heads: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Attend from every token of x to some of them, on the native kernel.

    Args:
        x: (B, N, C), float32, on the CPU; C, D and C' are multiples of 16.
        weight: float32 (3 * H * D, C): rows for query, key and value.
        bias: float32 (3 * H * D,) or None.
        out_weight: float32 (C', H * D), of the layer that follows the attention.
        out_bias: float32 (C',) or None.
        rows: int64 (B, K), the K tokens of each image that have keys, as rows of x.view(B * N, C).
        num_heads: H.
        scale: factor of the logits, positive.

    Returns:
        (B, N, C'), and what the attention gave, (B, N, H * D), to look at: no gradient flows through it.

    Raises:
        BackendError: when something does not fit, or it is differentiated twice, or under a transform of torch.func.
    """
    check_transforms("cpu")
    given = (tensor if tensor is None else tensor.contiguous() for tensor in (x, weight, bias, out_weight, out_bias))
    outputs: tuple[Tensor, Tensor] = _Projected.apply(*given, rows, num_heads, scale)
    return outputs


class _Projected(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        out_weight: Tensor,
        out_bias: Tensor | None,
        rows: Tensor,
        num_heads: int,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        batch, tokens, width = x.shape
        dim, keys = out_weight.shape[1], rows.shape[1]
        kept, query = x.new_empty((batch * keys, width)), x.new_empty((batch, tokens, dim))
        kv, out = x.new_empty((2, batch, keys, dim)), torch.empty_like(query)
        sums, y = x.new_empty((2, batch, num_heads, tokens)), x.new_empty((batch, tokens, len(out_weight)))
        given = (x, weight, bias, out_weight, out_bias, rows, kept, query, kv, out, sums, y)
        panels = _panels(weight, out_weight)  # named: a packed call holds addresses alone
        kernel().projected_forward(_pack(num_heads, scale, *given, panels))
        ctx.save_for_backward(x, weight, out_weight, rows, kept, query, kv, out, as_bits(sums))
        ctx.numbers = num_heads, scale
        ctx.mark_non_differentiable(out)
        ctx.set_materialize_grads(False)
        return y, out

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad_y is None:
            return (None,) * 8
        x, weight, out_weight, rows, *computed, sums = ctx.saved_tensors
        x, weight, out_weight = of_type(torch.float32, x, weight, out_weight)
        computed = [*of_type(torch.float32, *computed), from_bits(sums)]
        wants = ctx.needs_input_grad
        grad_y, panels = grad_y.contiguous(), _panels(weight, out_weight)
        grad_query, grad_kv = torch.empty_like(computed[1]), torch.empty_like(computed[2])
        grad_x = torch.empty_like(x) if wants[0] else None
        grads = (grad_x, *_grads(weight, wants[1], wants[2]), *_grads(out_weight, wants[3], wants[4]))
        given = (
            x,
            weight,
            None,
            out_weight,
            None,
            rows,
            *computed,
            None,
            panels,
            grad_y,
            grad_query,
            grad_kv,
            *grads,
        )
        kernel().projected_backward(_pack(*ctx.numbers, *given))
        asked = (grad if want else None for grad, want in zip(grads, wants, strict=False))
        return *final(tuple(asked), grad_y, x, weight, out_weight, message=NO_SECOND), None, None, None


def _pack(
    num_heads: int,
    scale: float,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out_weight: Tensor,
    out_bias: Tensor | None,
    rows: Tensor,
    *others: Tensor | None,
) -> bytes:
    """Lay a call out as the kernel reads it; ``others`` are in the kernel's order, those at the end may be missing."""
    _check(num_heads, x, weight, bias, out_weight, out_bias, rows, others)
    batch, tokens, width = x.shape
    out_width, dim = out_weight.shape
    sizes = batch, tokens, rows.shape[1], num_heads, dim // num_heads, width, out_width, torch.get_num_threads()
    tensors = (x, weight, bias, out_weight, out_bias, rows, *others)
    addresses = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
    return PROJECTION_LAYOUT.pack(*sizes, scale, *addresses, *(0,) * (_TENSORS - len(addresses)))


def _check(
    num_heads: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out_weight: Tensor,
    out_bias: Tensor | None,
    rows: Tensor,
    others: Sequence[Tensor | None],
) -> None:
    if not x.dim() - 1 == weight.dim() == out_weight.dim() == rows.dim() == 2:
        raise BackendError("the native kernel takes x (B, N, C), two weights (rows, columns) and rows (B, K)")
    (batch, tokens, width), keys, (out_width, dim) = x.shape, rows.shape[1], out_weight.shape
    check_numbers(batch=batch, tokens=tokens, heads=num_heads, keys=keys)
    if any(size < 1 or size % _STEP for size in (width, out_width)) or dim < 1 or dim % (num_heads * _STEP):
        raise BackendError(f"the native kernel cannot project {width} to {num_heads} heads of {dim} and {out_width}")
    whole, some = (batch, tokens, dim), (2, batch, keys, dim)
    shapes = [(batch, tokens, width), (3 * dim, width), (3 * dim,), (out_width, dim), (out_width,)]
    shapes += [(batch * keys, width), whole, some, whole, (2, batch, num_heads, tokens), (batch, tokens, out_width)]
    shapes += [(3 * dim * width + out_width * dim,), (batch, tokens, out_width), whole, some, *shapes[:5]]
    given = (x, weight, bias, out_weight, out_bias, *others)
    for name, tensor, shape in zip(_NAMES, given, shapes, strict=False):
        check_whole(name, tensor, torch.float32, shape)
    check_whole("rows", rows, torch.int64, (batch, keys))
    lowest, highest = rows.aminmax()
    if lowest.item() < 0 or highest.item() >= batch * tokens:
        raise BackendError(
            f"the native kernel cannot take rows {lowest.item()} to {highest.item()} of {batch * tokens}"
        )


def _panels(weight: Tensor, out_weight: Tensor) -> Tensor:
    """Room for both weights, in the order in which the kernel reads them."""
    return weight.new_empty(weight.numel() + out_weight.numel())


def _grads(weight: Tensor, want_weight: bool, want_bias: bool) -> tuple[Tensor | None, Tensor | None]:
    """Room for the gradients of a layer; that of the bias is summed on the way to that of the weight."""
    if not want_weight and not want_bias:
        return None, None
    return torch.empty_like(weight), weight.new_empty(len(weight)) if want_bias else None
