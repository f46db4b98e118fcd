"""Tensors of a correctness case: values, memory layouts, biases."""

import math
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.kernels import device

__all__ = ["bias_of", "grid_of", "tensors_of"]

Case = dict[str, Any]


def tensors_of(case: Case) -> list[Tensor]:
    """Return query, key, value and the gradient of the output, laid out as the case says."""
    generator = torch.Generator().manual_seed(len(case["label"]))
    b, h, kv, n, m = (case[name] for name in ("batch", "heads", "kv_heads", "queries", "keys"))
    shapes = [
        (b, h, n, case["dim"]),
        (b, kv, m, case["dim"]),
        (b, kv, m, case["value_dim"]),
        (b, h, n, case["value_dim"]),
    ]
    dtype = getattr(torch, case["dtype"])
    tensors = [torch.randn(shape, generator=generator).to(device=device(), dtype=dtype) for shape in shapes]
    return LAYOUTS[case["layout"]](tensors)


def packed(tensors: list[Tensor]) -> list[Tensor]:
    """As timm has it: one tensor (B, N, 3, H, D) of all three."""
    if len({tensor.shape for tensor in tensors[:3]}) > 1:
        return [tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in tensors]
    query, key, value = torch.stack([tensor.transpose(1, 2) for tensor in tensors[:3]], 2).permute(2, 0, 3, 1, 4)
    return [query, key, value, tensors[3].transpose(1, 2).contiguous().transpose(1, 2)]


def fenced(tensors: list[Tensor]) -> list[Tensor]:
    """In the middle of NaN."""
    found = []
    for tensor in tensors:
        store = tensor.new_full([size + 2 for size in tensor.shape], float("nan"))
        inner = store[1:-1, 1:-1, 1:-1, 1:-1]
        inner.copy_(tensor)
        found.append(inner)
    return found


LAYOUTS = {
    "contiguous": list,
    "packed": packed,
    "sequence_first": lambda ts: [t.permute(2, 0, 1, 3).contiguous().permute(1, 2, 0, 3) for t in ts],
    "last_axis_strided": lambda ts: [t.mT.contiguous().mT for t in ts],
    "expanded": lambda ts: [ts[0], *(t[:1].expand(t.shape) for t in ts[1:])],
    "fenced": fenced,
}


def grid_of(pattern: str, keys: int) -> dict[str, Any]:
    """Return the grid of the keys, for the patterns that need one."""
    if pattern not in ("block", "cross"):
        return {}
    prefix = 1 if keys > 1 else 0
    cells = keys - prefix
    rows = next(rows for rows in range(math.isqrt(cells), 0, -1) if cells % rows == 0)
    return {"grid_size": (rows, cells // rows), "num_prefix_tokens": prefix}


def bias_of(case: Case) -> Tensor | None:
    """Return the bias of the case."""
    if case["bias"] == "none":
        return None
    b, h, n, m = (case[name] for name in ("batch", "heads", "queries", "keys"))
    shape = {"key": (m,), "batch_key": (b, 1, 1, m), "query_key": (n, m), "full": (b, h, n, m)}[case["bias_shape"]]
    generator = torch.Generator().manual_seed(5)
    allowed = torch.rand(shape, generator=generator) < 0.7
    allowed[..., 0] = True  # a query without a key only where the case asks for it
    if case["no_key_rows"]:
        allowed[..., 3, :], allowed[..., -2, :] = False, False
    if case["bias"] == "bool":
        return allowed.to(device())
    dtype = getattr(torch, case["dtype"])
    low = {"-inf": -math.inf, "finite": torch.finfo(dtype).min, "-1e4": -1e4, "nothing": 0.0}[case["forbidding"]]
    numbers = torch.randn(shape, generator=generator)
    return numbers.masked_fill(~allowed, low).to(device=device(), dtype=dtype)
