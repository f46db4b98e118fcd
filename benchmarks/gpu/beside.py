"""Bits drawn by a kernel of their own: alone, and on a second stream beside the product before attention."""

from typing import Any

import torch

from benchmarks.gpu.kernels import call_of, design, need_gpu, with_outcomes
from benchmarks.gpu.record import NotHere
from benchmarks.gpu.stopwatch import interleaved, warmed

__all__ = ["check"]


def check(case: dict[str, Any], is_dry: bool) -> dict[str, Any]:
    """Time the product, the draw, one after the other, and both side by side."""
    need_gpu()
    try:
        from dropkey.ops.triton.operators import element_bits
    except ImportError as error:
        raise NotHere(f"this version cannot draw beforehand: {error}") from None
    batch, heads, tokens, dim = (case[name] for name in ("batch", "heads", "tokens", "dim"))
    width = heads * dim
    hidden = torch.randn(batch * tokens, width, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(width, 3 * width, device="cuda", dtype=torch.bfloat16)
    ratio, seed = torch.tensor(0.3, dtype=torch.float64), torch.full((), 11, dtype=torch.int64, device="cuda")
    side = torch.cuda.Stream()

    def product() -> torch.Tensor:
        return hidden @ weight

    def draw() -> torch.Tensor:
        return element_bits(ratio, seed, batch, heads, tokens, tokens)

    def both() -> None:
        product()
        draw()

    def side_by_side() -> None:
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            bits = draw()
        product()
        torch.cuda.current_stream().wait_stream(side)
        bits.record_stream(torch.cuda.current_stream())

    query, key, value = product().view(batch, tokens, 3, heads, dim).permute(2, 0, 3, 1, 4)
    backend, bits = design("ahead"), draw()
    call = call_of([query, key, value], ratio, seed=seed)

    def forward() -> None:
        with torch.no_grad():
            backend.attend(call, bits=bits)

    runs = {
        "query-key-value product": product,
        "bits": draw,
        "one after the other": both,
        "side by side": side_by_side,
        "forward, bits given": forward,
    }
    hosts = {name: warmed(run) for name, run in runs.items()}
    times = interleaved(runs, hosts, 25)
    rows = [{"contender": name, **timed.facts()} for name, timed in times.items()]
    return with_outcomes({"state": "measured", "rows": rows, "bits_mib": round(bits.numel() / 2**20, 1)})
