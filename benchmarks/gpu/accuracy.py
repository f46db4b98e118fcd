"""The accuracy rule: at most twice the error of torch's own attention plus two eps of the largest value.

Both errors are against the float64 reference under the exported mask.
"""

from typing import Any

import torch
from torch import Tensor

import dropkey
from dropkey.ops.call import AttentionCall
from dropkey.ops.reference import weights

__all__ = ["NAMES", "judged", "poisoned_memory", "reference", "torchs", "with_gradients"]

NAMES = ("out", "query", "key", "value")


def with_gradients(attend, tensors: list[Tensor]) -> list[Tensor]:
    """Return the output of ``attend(query, key, value)`` and the gradients of the three."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors[:3]]
    out = attend(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, tensors[3])]


def reference(tensors: list[Tensor], keep: Tensor, attn_bias: Tensor | None, is_causal: bool) -> list[Tensor]:
    """Return output and gradients in float64."""

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        call = AttentionCall(query, key, value, attn_bias, is_causal, query.shape[-1] ** -0.5, None)
        return weights(call, keep) @ call.expanded().value

    return with_gradients(attend, [tensor.double() for tensor in tensors])


def torchs(tensors: list[Tensor], attn_bias: Tensor | None, **options: Any) -> list[Tensor]:
    """Return what torch's attention makes of the same mask at the same dtype."""
    if attn_bias is not None:
        attn_bias = attn_bias.expand(*tensors[0].shape[:3], tensors[1].shape[2])
    return with_gradients(
        lambda q, k, v: dropkey.attention(q, k, v, attn_bias=attn_bias, backend="sdpa", **options), tensors
    )


def judged(got: list[Tensor], want: list[Tensor], torch_s: list[Tensor], tensors: list[Tensor]) -> dict[str, Any]:
    """Return errors, what is allowed, and whether all are within it."""
    errors, is_right = {}, True
    for name, a, b, c in zip(NAMES, got, want, torch_s, strict=True):
        eps = torch.finfo(a.dtype).eps
        error, own = ((x.double() - b).abs().max().item() for x in (a, c))
        own_of_rule = eps * b.abs().max().item() if own != own else own  # where torch's own is NaN: two eps more
        allowed = 2 * own_of_rule + 2 * eps * b.abs().max().item() + floor(name, tensors) * eps
        num_nan = int(a.isnan().sum())
        fits = a.dtype == tensors[0].dtype and a.shape == b.shape
        is_right &= fits and num_nan == 0 and error <= allowed
        errors[name] = {"error": error, "allowed": allowed, "sdpa": own, "nan": num_nan}
        if not fits:
            errors[name]["is"] = f"{a.dtype} {tuple(a.shape)}"
    worst = max(one["error"] / one["allowed"] if one["allowed"] else one["error"] for one in errors.values())
    facts: dict[str, Any] = {"state": "pass" if is_right else "fail", "worst": round(worst, 3), "errors": errors}
    if not is_right:
        bad = {name: one for name, one in errors.items() if one["nan"] or not one["error"] <= one["allowed"]}
        parts = [f"{name}: {one['error']:.2e} > {one['allowed']:.2e}, {one['nan']} NaN" for name, one in bad.items()]
        facts["error"] = "; ".join(parts) or "wrong shape or dtype"
    return facts


def floor(name: str, tensors: list[Tensor]) -> float:
    """Return how large a gradient is that is 0 but for rounding: that of the scores where a query sees one key."""
    query, key, value, grad_out = tensors
    if key.shape[2] > 5 or name not in ("query", "key"):
        return 0.0
    terms = grad_out.abs().max() * value.abs().max() * value.shape[-1] ** 0.5 * query.shape[-1] ** -0.5
    other, count = (key, 1) if name == "query" else (query, query.shape[2] ** 0.5 * query.shape[1] // key.shape[1])
    return (2 * terms * other.abs().max() * count).item()


def poisoned_memory(tensors: list[Tensor]) -> None:
    """Leave NaN where outputs are likely to be allocated."""
    spoiled = [torch.full_like(tensor, float("nan"), memory_format=torch.contiguous_format) for tensor in tensors]
    query = tensors[0]
    spoiled.append(torch.full((3, *query.shape[:3]), float("nan"), device=query.device))
    del spoiled
