"""Section ``first_call``: what a user waits for at first, with an empty cache and with a full one."""

import time
from typing import Any

import torch

import dropkey
from benchmarks.gpu.kernels import device, need_kernels, with_outcomes

__all__ = ["check"]


def check(case: dict[str, Any], is_dry: bool) -> dict[str, Any]:
    """Return the seconds of the first call and of the second."""
    need_kernels()
    shape = (1, 2, 18, 16) if is_dry else (32, 12, 197, 64)
    tensors = [torch.randn(shape, device=device()).bfloat16().requires_grad_() for _ in range(3)]
    torch.nn.functional.scaled_dot_product_attention(*tensors).sum().backward()  # torch itself is ready
    began = time.perf_counter()
    from dropkey.ops.triton import self_test

    facts = {"import_s": round(time.perf_counter() - began, 3)}
    seconds = [one_call(tensors, case["backend"]) for _ in range(2)]
    facts |= {"first_s": round(seconds[0], 3), "second_s": round(seconds[1], 5)}
    facts = with_outcomes({"state": "measured", **facts})
    if not is_dry:
        self_test.forget()  # what the self-test takes where everything is compiled
        facts["tested_again_s"] = round(one_call(tensors, case["backend"]), 4)
    return facts


def one_call(tensors: list[torch.Tensor], backend: str) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    out = dropkey.attention(*tensors, drop_ratio=0.3, backend=backend)
    torch.autograd.grad(out, tensors, torch.ones_like(out))
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began
