"""What the kernels compute, written out in torch: their reference in the self-test, and what runs where they fail it.

It materializes the attention map, and keeps query, key and value in float32 (float64 for float64).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from dropkey.ops.call import AttentionCall
from dropkey.ops.reference import weights
from dropkey.ops.triton.launch import Inputs
from dropkey.ops.triton.mask_test import unpacked
from dropkey.patterns import Column, Element, Geometry

__all__ = ["backward", "forward", "keep_mask"]

_DRAWN = {"element": Element, "column": Column}


class _Heads(NamedTuple):
    """One call with key and value repeated to as many heads as the query has."""

    query: Tensor
    key: Tensor
    value: Tensor
    attn: Tensor  # (B, H, Nq, Nk)
    passes: Tensor  # bool: where the gradient passes to the logit

    @classmethod
    def of(cls, inputs: Inputs) -> "_Heads":
        dtype = torch.promote_types(inputs.query.dtype, torch.float32)
        query, key, value = (tensor.detach().to(dtype) for tensor in inputs[:3])
        call = AttentionCall(query, key, value, inputs.attn_bias, inputs.is_causal, inputs.scale, None).expanded()
        keep, allowed = keep_mask(inputs), call.allowed()
        return cls(query, call.key, call.value, weights(call, keep), keep if allowed is None else keep & allowed)


def forward(inputs: Inputs, out: Tensor) -> None:
    """Fill ``out`` (B, H, Nq, Dv)."""
    heads = _Heads.of(inputs)
    out.copy_(heads.attn @ heads.value)


def backward(inputs: Inputs, grad_out: Tensor, grad_query: Tensor, grad_key: Tensor, grad_value: Tensor) -> None:
    """Fill the three gradients; a dropped logit passes nothing on, in a row that has lost all its keys too."""
    heads = _Heads.of(inputs)
    grad_out = grad_out.to(heads.attn.dtype)
    grad_attn = grad_out @ heads.value.mT
    mean = (grad_attn * heads.attn).sum(-1, keepdim=True)
    grad_logits = torch.where(heads.passes, heads.attn * (grad_attn - mean), 0.0) * inputs.scale
    grad_query.copy_(grad_logits @ heads.key)
    _sum_groups(grad_key, grad_logits.mT @ heads.query)
    _sum_groups(grad_value, heads.attn.mT @ grad_out)


def _sum_groups(total: Tensor, each: Tensor) -> None:
    batch, num_heads, *rest = each.shape
    total.copy_(each.view(batch, total.shape[1], -1, *rest).sum(2) if num_heads else each)


def keep_mask(inputs: Inputs) -> Tensor:
    """Return the mask that the kernels use, bool, broadcastable to (B, H, Nq, Nk)."""
    batch, num_heads, num_queries, _ = inputs.query.shape
    num_keys = inputs.key.shape[2]
    if inputs.pattern == "none":
        return torch.ones((1, 1, 1, num_keys), dtype=torch.bool, device=inputs.query.device)
    if inputs.pattern in _DRAWN:
        geometry = Geometry(batch, num_heads, num_queries, num_keys)
        return _DRAWN[inputs.pattern]().keep(inputs.seed, inputs.drop_ratio, geometry)
    assert inputs.kept is not None
    if inputs.pattern == "token":
        return inputs.kept.view(torch.bool)[:, None, None]
    return unpacked(inputs.kept, num_keys)
