"""Self-attention with its projections, over chosen rows: what the token pattern leaves to compute, as one node.

Composed of torch's own functions it would move much memory to compute little: the gradients of key and value would be
put together, those of the two parts of the weights too, and the gradient of x filled with zeros, added to and summed.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dropkey.ops.cpu.keep import numbers_of
from dropkey.ops.cpu.operators import attention_operator, backward_into, final

__all__ = ["attend_projected"]


def attend_projected(
    x: Tensor, weight: Tensor, bias: Tensor | None, rows: Tensor, num_heads: int, scale: float
) -> Tensor:
    """Attend from every token of x to some of them, on the native kernel.

    Args:
        x: (B, N, C), float32 or bfloat16, on the CPU.
        weight: (3 * H * D, C): rows for query, key and value.
        bias: (3 * H * D,) or None.
        rows: int64 (B * K,), the K tokens of each image that have keys, as rows of x.view(B * N, C).
        num_heads: H.
        scale: factor of the logits, positive.

    Returns:
        (B, N, H * D).

    Raises:
        BackendError: when it is differentiated twice.
    """
    out: Tensor = _Projected.apply(x, weight, bias, rows, num_heads, scale)
    return out


class _Projected(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, rows: Tensor, num_heads: int, scale: float
    ) -> Tensor:
        batch, tokens, width = x.shape
        flat, dim = x.reshape(-1, width), weight.shape[0] // 3
        kept = flat.index_select(0, rows)
        query = F.linear(flat, weight[:dim], None if bias is None else bias[:dim])
        kv = F.linear(kept, weight[dim:], None if bias is None else bias[dim:])
        with torch._C._AutoDispatchBelowAutograd():
            heads = _heads(query, kv, batch, num_heads)
            out, sums = attention_operator(*heads, None, scale, False, *numbers_of(None))
        ctx.save_for_backward(flat, weight, bias, rows, kept, query, kv, out, sums)
        ctx.numbers = num_heads, scale
        joined: Tensor = out.transpose(1, 2).reshape(batch, tokens, dim)
        return joined

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        flat, weight, bias, rows, kept, query, kv, out, sums = ctx.saved_tensors
        num_heads, scale = ctx.numbers
        batch, dim = out.shape[0], weight.shape[0] // 3
        with torch.no_grad():
            grad_query, grad_kv = torch.empty_like(query), torch.empty_like(kv)
            backward_into(
                _heads(grad_query, grad_kv, batch, num_heads),
                None,
                grad_out.view(batch, -1, num_heads, dim // num_heads).transpose(1, 2),
                *_heads(query, kv, batch, num_heads),
                None,
                out,
                sums,
                scale,
                False,
                *numbers_of(None),
            )
            grad_x = grad_weight = grad_bias = None
            if ctx.needs_input_grad[0]:
                grad_x = grad_query @ weight[:dim]
                grad_x.index_add_(0, rows, grad_kv @ weight[dim:])
                grad_x = grad_x.view(batch, -1, flat.shape[1])
            if ctx.needs_input_grad[1]:
                grad_weight = torch.empty_like(weight)
                torch.mm(grad_query.t(), flat, out=grad_weight[:dim])
                torch.mm(grad_kv.t(), kept, out=grad_weight[dim:])
            if bias is not None and ctx.needs_input_grad[2]:
                grad_bias = torch.cat([grad_query.sum(0), grad_kv.sum(0)])
        return *final((grad_x, grad_weight, grad_bias), grad_out, flat, weight), None, None, None


def _heads(query: Tensor, kv: Tensor, batch: int, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B * N, H * D), (B * K, 2 * H * D) -> views (B, H, N, D), (B, H, K, D), (B, H, K, D)."""
    head_dim = query.shape[1] // num_heads
    key, value = kv.view(batch, -1, 2, num_heads, head_dim).permute(2, 0, 3, 1, 4)
    return query.view(batch, -1, num_heads, head_dim).transpose(1, 2), key, value
