"""The door to the kernels: what an operator was given fits together, whoever calls."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dropkey.errors import BackendError

__all__ = ["check_attention", "check_backward"]


def check_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_bias: Tensor | None,
    kept: Tensor | None,
    drop_ratio: Tensor,
    seed: Tensor,
    pattern: str,
) -> None:
    """Raise a BackendError unless the kernels can walk along these tensors."""
    if query.dim() != 4 or key.dim() != 4:
        raise BackendError("the Triton kernels take (batch, heads, tokens, head_dim): call dropkey.attention")
    batch, num_heads, num_queries, dim = query.shape
    kv_heads, num_keys = key.shape[1:3]
    _check("key", key, query, (batch, kv_heads, num_keys, dim), query.dtype)
    _check("value", value, query, (batch, kv_heads, num_keys, value.shape[-1] if value.dim() else 0), query.dtype)
    if kv_heads and num_heads % kv_heads:
        raise BackendError(f"the Triton kernels cannot share {kv_heads} key heads among {num_heads} query heads")
    _check("seed", seed, query, (), torch.int64)
    if drop_ratio.dtype != torch.float64 or drop_ratio.dim():
        raise BackendError(f"the Triton kernels take drop_ratio as one float64, not {drop_ratio.dtype}")
    if attn_bias is not None:
        wanted = (batch, num_heads, num_queries, num_keys)
        shape = (1,) * (4 - attn_bias.dim()) + tuple(attn_bias.shape)
        if len(shape) != 4 or any(have not in (1, want) for have, want in zip(shape, wanted, strict=True)):
            raise _misfit("attn_bias", attn_bias, f"not broadcastable to {wanted}")
    if pattern == "token":
        _check("kept", kept, query, (batch, num_keys), torch.bool)
    elif pattern not in ("element", "column", "none"):
        _check("kept", kept, query, (batch, num_heads, num_queries, (num_keys + 7) // 8), torch.uint8)


def check_backward(query: Tensor, value: Tensor, out: Tensor, row_stats: Tensor, grad_out: Tensor) -> None:
    """Raise a BackendError unless what backward gets is what forward has given."""
    shape = (*query.shape[:3], value.shape[-1])
    _check("out", out, query, shape, query.dtype)
    _check("grad_out", grad_out, query, shape, query.dtype)
    _check("row_stats", row_stats, query, (3, *query.shape[:3]), torch.float32)


def _check(name: str, tensor: Tensor | None, query: Tensor, shape: Sequence[int], dtype: torch.dtype) -> None:
    if tensor is None:
        raise BackendError(f"the Triton kernels need {name} for this pattern: call dropkey.attention")
    if tensor.shape != tuple(shape) or tensor.dtype != dtype or tensor.device != query.device:
        raise _misfit(name, tensor, f"not {dtype} of shape {tuple(shape)} on {query.device}")


def _misfit(name: str, tensor: Tensor, why: str) -> BackendError:
    return BackendError(
        f"the Triton kernels cannot take {name}: it is {tensor.dtype} of shape {tuple(tensor.shape)} on "
        f"{tensor.device}, {why}; call dropkey.attention, which checks and broadcasts"
    )
