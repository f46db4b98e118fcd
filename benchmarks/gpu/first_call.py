"""Section ``first_call``: what a user waits for at first, with an empty cache and with a full one."""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import dropkey
from benchmarks.gpu.kernels import device, need_kernels, outcomes
from benchmarks.gpu.record import Record
from benchmarks.gpu.workers import Worker

__all__ = ["check", "run"]


def run(record: Record) -> None:
    """Ask fresh processes, one after the other, that share a cache of their own."""
    backends = ["triton"] if record.is_dry else ["auto", "triton"]
    labels = [f"{backend}, {state} cache" for backend in backends for state in ("empty", "full")]
    labels = labels[:1] if record.is_dry else labels
    record.plan(labels)
    for backend in backends:
        with tempfile.TemporaryDirectory(dir=record.work) as folder:
            for label in (label for label in labels if label.startswith(backend)):
                if record.left < 3:
                    return
                worker = Worker("first_call", record.is_dry, {"TRITON_CACHE_DIR": str(Path(folder))})
                record.add(label, **worker.ask({"label": label, "backend": backend}, record.left - 1))
                worker.close()


def check(case: dict[str, Any], is_dry: bool) -> dict[str, Any]:
    """Return the seconds of the first call and of the second."""
    need_kernels()
    shape = (1, 2, 18, 16) if is_dry else (32, 12, 197, 64)
    tensors = [torch.randn(shape, device=device()).bfloat16().requires_grad_() for _ in range(3)]
    torch.nn.functional.scaled_dot_product_attention(*tensors).sum().backward()  # torch itself is ready
    seconds = [one_call(tensors, case["backend"]) for _ in range(2)]
    facts = {"first_s": round(seconds[0], 3), "second_s": round(seconds[1], 5)}
    seen = outcomes()
    return {"state": "measured", **facts, **({"self_test": seen} if seen else {})}


def one_call(tensors: list[torch.Tensor], backend: str) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    out = dropkey.attention(*tensors, drop_ratio=0.3, backend=backend)
    torch.autograd.grad(out, tensors, torch.ones_like(out))
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began
