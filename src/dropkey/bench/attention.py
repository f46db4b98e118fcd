"""Attention alone: time and memory over a list of shapes, against torch's attention without dropout."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dropkey.bench.memory import peak_bytes
from dropkey.bench.timing import Times, interleaved
from dropkey.bench.ways import BASELINE, FUSED_RE_ATTENTION, Way, known_ways, way
from dropkey.ops.dispatch import backends, is_available

__all__ = ["SHAPES", "bench_attention"]

Shape = tuple[int, int, int, int]  # (B, H, N, D)

# A small ViT on 32 x 32 images, ViT-S/16 at 224, at 448 and at 896.
SHAPES: tuple[Shape, ...] = ((64, 3, 65, 64), (32, 6, 197, 64), (4, 6, 785, 64), (1, 6, 3137, 64))
_GEMM = "a square matrix product"
_GEMM_SIZE = 1024
_WIDE = ", float32"  # our own way on wider numbers, beside 16 bits
_SLOW_MAPS = 1e8  # the unfused ways are left out above so many attention weights: they would take gigabytes


def bench_attention(
    shapes: Sequence[Shape] = SHAPES,
    *,
    dtype: str = "float32",
    drop_ratio: float = 0.3,
    pattern: str = "element",
    rounds: int = 15,
    compiled: bool = False,
    memory: bool = True,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Measure every way on every shape.

    Args:
        shapes: (B, H, N, D) each.
        dtype: name of a torch dtype.
        drop_ratio: in (0, 1).
        pattern: name of a pattern that needs no grid.
        rounds: timed rounds.
        compiled: also the paper's two lines under torch.compile.
        memory: also peak memory, each in a process of its own.
        say: called with what is being measured.

    Returns:
        One row per shape, way and direction ("forward", "forward + backward"): plain data for JSON. ``share_of_gemm``
        is the rate of arithmetic as a share of what a product of two large square matrices of that dtype reached in the
        same rounds. At 16 bits our own way is there a second time, on float32.
    """
    working = [name for name in backends() if name != "reference" and is_available(name)]
    names = [name for name in known_ways(working, pattern) if compiled or not name.endswith(", compiled")]
    rows: list[dict[str, Any]] = []
    for shape in shapes:
        say(f"measuring (B, H, N, D) = {shape}, {dtype}")
        for forward_only in (True, False):
            times = _times(names, shape, dtype, drop_ratio, forward_only, rounds)
            gemm = 2 * _GEMM_SIZE**3 / times.pop(_GEMM).median_ms / 1e6
            for name, time in times.items():
                peak = peak_bytes(name, shape, dtype, drop_ratio, forward_only) if memory and name in names else None
                rows.append(_row(name, shape, dtype, forward_only, time, peak, gemm))
    return rows


def _times(
    names: Sequence[str], shape: Shape, dtype: str, drop_ratio: float, forward_only: bool, rounds: int
) -> dict[str, Times]:
    batch, heads, tokens, _ = shape
    device = "cuda" if torch.cuda.is_available() else "cpu"
    inputs = [torch.randn(shape, dtype=getattr(torch, dtype), device=device).requires_grad_() for _ in range(3)]
    is_small = batch * heads * tokens**2 <= _SLOW_MAPS
    fused = (BASELINE, FUSED_RE_ATTENTION)
    ways = {name: way(name) for name in names if is_small or name in fused or name.startswith("dropkey ")}
    runs: dict[str, Callable[[], object]] = {
        name: partial(_run, attend, inputs, drop_ratio, forward_only) for name, attend in ways.items()
    }
    ours = next((name for name in ways if name.startswith("dropkey ")), None)
    if dtype != "float32" and ours is not None:
        wide = [tensor.detach().float().requires_grad_() for tensor in inputs]
        runs[ours + _WIDE] = partial(_run, ways[ours], wide, drop_ratio, forward_only)
    square = torch.randn(_GEMM_SIZE, _GEMM_SIZE, dtype=inputs[0].dtype, device=device)
    runs[_GEMM] = lambda: square @ square
    return interleaved(runs, rounds)


def _run(attend: Way, inputs: Sequence[Tensor], drop_ratio: float, forward_only: bool) -> None:
    if forward_only:
        with torch.no_grad():
            attend(inputs[0], inputs[1], inputs[2], drop_ratio)
        return
    out = attend(inputs[0], inputs[1], inputs[2], drop_ratio)
    torch.autograd.grad(out, inputs, torch.ones_like(out))


def _row(
    name: str, shape: Shape, dtype: str, forward_only: bool, time: Times, peak: int | None, gemm: float
) -> dict[str, Any]:
    batch, heads, tokens, dim = shape
    flops = (4 if forward_only else 14) * batch * heads * tokens**2 * dim  # 2 and 5 more products, one of them again
    rate = flops / time.median_ms / 1e6
    return {
        "way": name,
        "shape": list(shape),
        "dtype": dtype,
        "direction": "forward" if forward_only else "forward + backward",
        "median_ms": round(time.median_ms, 4),
        "p10_ms": round(time.low_ms, 4),
        "p90_ms": round(time.high_ms, 4),
        "ratio": round(time.ratio, 4),
        "gflops": round(rate, 1),
        "share_of_gemm": None if name.endswith(_WIDE) else round(rate / gemm, 3),
        "peak_mib": None if peak is None else round(peak / 2**20, 1),
    }
