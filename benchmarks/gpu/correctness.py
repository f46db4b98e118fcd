"""Section ``correctness``: kernels against the float64 reference with the exported mask, and the masks themselves."""

from typing import Any

import torch
from torch import Tensor

import dropkey
from benchmarks.gpu import accuracy
from benchmarks.gpu.inputs import bias_of, grid_of, tensors_of
from benchmarks.gpu.kernels import call_of, design, device, need_gpu, trust_kernels

__all__ = ["check"]

SEED = 11
MASK_DRAW = {"drop_ratio": 0.35, "seed": -1234567890123456789}


def check(case: dict[str, Any], is_dry: bool) -> dict[str, Any]:
    """Check one case."""
    trust_kernels()
    found = CHECKS[case["check"]](case)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return found


def accurate(case: dict[str, Any]) -> dict[str, Any]:
    """Compare output and gradients with the reference."""
    backend = design(case["design"])
    tensors, bias, grid = tensors_of(case), bias_of(case), grid_of(case["pattern"], case["keys"])
    draw = {"drop_ratio": case["ratio"], "pattern": case["pattern"], "seed": SEED, **grid}
    shape = [case[name] for name in ("batch", "heads", "queries", "keys")]
    keep = dropkey.keep_mask(*shape, **draw).to(device())
    want = accuracy.reference(tensors, keep, bias, case["causal"])
    torch_s = accuracy.torchs(tensors, bias, is_causal=case["causal"], **draw)
    accuracy.poisoned_memory(tensors)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        call = call_of([query, key, value], case["ratio"], case["pattern"], SEED, bias, case["causal"], **grid)
        return backend.attend(call)

    return accuracy.judged(accuracy.with_gradients(attend, tensors), want, torch_s, tensors)


def seen_mask(case: dict[str, Any]) -> dict[str, Any]:
    """Read the mask off a kernel, with equal logits, and compare it with the exported one bit for bit."""
    backend, grid = design(case["design"]), grid_of(case["pattern"], case["keys"])
    shape = [case[name] for name in ("batch", "heads", "queries", "keys")]
    keep = dropkey.keep_mask(*shape, pattern=case["pattern"], **MASK_DRAW, **grid)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        tensors = [query, key, value]
        return backend.attend(call_of(tensors, MASK_DRAW["drop_ratio"], case["pattern"], MASK_DRAW["seed"], **grid))

    seen = SEEN[case["check"]](attend, *shape, getattr(torch, case["dtype"])).cpu()
    return compared(seen, keep)


def seen_forward(attend, batch: int, heads: int, queries: int, keys: int, dtype: torch.dtype) -> Tensor:
    """Return where forward gives weight: its output, with the identity as values."""
    query, key = zeros(dtype, batch, heads, queries, 16), zeros(dtype, batch, heads, keys, 16)
    return attend(query, key, eye(dtype, keys, batch, heads)) > 0


def seen_key_value(attend, batch: int, heads: int, queries: int, keys: int, dtype: torch.dtype) -> Tensor:
    """Return where the kernel of keys and values gives weight: the gradient of the values is that, transposed."""
    query, key = zeros(dtype, batch, heads, queries, 16), zeros(dtype, batch, heads, keys, 16)
    value = zeros(dtype, batch, heads, keys, queries)
    return (accuracy.with_gradients(attend, [query, key, value, eye(dtype, queries, batch, heads)])[3] > 0).mT


def seen_query(attend, batch: int, heads: int, queries: int, keys: int, dtype: torch.dtype) -> Tensor:
    """Return where the kernel of the queries gives weight: with the identity as keys, it gives that of the logits.

    That of a kept key is its weight times its value less the mean, which is not 0 with values of 1 and -1.
    """
    signs = 1 - 2 * (torch.arange(keys) * 7 % 11 % 2)
    value = signs.to(device=device(), dtype=dtype)[:, None].expand(batch, heads, keys, 1).contiguous()
    grad_out = zeros(dtype, batch, heads, queries, 1) + 1
    tensors = [zeros(dtype, batch, heads, queries, keys), eye(dtype, keys, batch, heads), value, grad_out]
    return accuracy.with_gradients(attend, tensors)[1] != 0


def seen_on_devices(case: dict[str, Any]) -> dict[str, Any]:
    """Compare the mask exported on the GPU with that of the CPU."""
    need_gpu()
    shape = [case[name] for name in ("batch", "heads", "queries", "keys")]
    draw = {"pattern": case["pattern"], **MASK_DRAW, **grid_of(case["pattern"], case["keys"])}
    return compared(dropkey.keep_mask(*shape, **draw, device="cuda").cpu(), dropkey.keep_mask(*shape, **draw))


def compared(seen: Tensor, keep: Tensor) -> dict[str, Any]:
    """Return how many bits of two masks differ, and where the first one is."""
    if seen.shape != keep.shape:
        return {"state": "fail", "error": f"mask of shape {tuple(seen.shape)}, not {tuple(keep.shape)}"}
    differing = (seen != keep).nonzero()
    if not len(differing):
        return {"state": "pass", "bits": keep.numel(), "kept": round(keep.double().mean().item(), 4)}
    first = tuple(differing[0].tolist())
    return {"state": "fail", "error": f"{len(differing)} of {keep.numel()} bits differ, the first at {first}"}


def zeros(dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.zeros(shape, dtype=dtype, device=device())


def eye(dtype: torch.dtype, size: int, batch: int, heads: int) -> Tensor:
    return torch.eye(size, dtype=dtype, device=device()).expand(batch, heads, size, size).contiguous()


SEEN = {"forward": seen_forward, "key_value": seen_key_value, "query": seen_query}
CHECKS = {"accuracy": accurate, "devices": seen_on_devices, **dict.fromkeys(SEEN, seen_mask)}
