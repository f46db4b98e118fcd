"""Offsets that 32 bits cannot hold: inside a tile, through wide rows, and between tiles, through many elements."""

from typing import Any

import torch
from torch import Tensor

import dropkey
from benchmarks.gpu.accuracy import judged, reference, torchs, with_gradients
from benchmarks.gpu.kernels import need_gpu
from benchmarks.gpu.record import NotHere

__all__ = ["many_elements", "wide_strides"]

DRAW = {"drop_ratio": 0.3, "seed": 5}


def need_memory(gib: float) -> None:
    """Say so where the GPU has not enough memory left."""
    need_gpu()
    free = torch.cuda.mem_get_info()[0] / 2**30
    if free < gib:
        raise NotHere(f"needs {gib:.0f} GiB of GPU memory, {free:.1f} are free")


def wide_strides(is_dry: bool) -> dict[str, Any]:
    """Rows of one tile that lie further apart than 2**31 elements in all."""
    need_memory(16)
    tokens, dim, row = 100, 64, 30_000_000  # 128 rows of a tile would span 3.8e9 elements, these 100 span 2.97e9
    store = torch.empty(tokens * row + dim, device="cuda", dtype=torch.bfloat16)  # 6 GB
    facts: dict[str, Any] = {"row_stride": row, "elements": store.numel()}
    generator = torch.Generator().manual_seed(3)
    plain = [torch.randn(1, 1, tokens, dim, generator=generator).to("cuda", torch.bfloat16) for _ in range(4)]
    shape, strides = (1, 1, tokens, dim), (tokens * row, tokens * row, row, 1)
    keep = dropkey.keep_mask(1, 1, tokens, tokens, **DRAW).to("cuda")
    want, own = reference(plain, keep, None, False), torchs(plain, None, **DRAW)
    for name, number in (("query", 0), ("key", 1), ("value", 2), ("grad_out", 3)):
        store.as_strided(shape, strides).copy_(plain[number])
        tensors = [*plain[:number], store.as_strided(shape, strides), *plain[number + 1 :]]
        found = judged(with_gradients(ours, tensors), want, own, plain)
        facts[name] = found["worst"]
        assert found["state"] == "pass", f"wide rows of {name}: {found.get('error')}"
    return facts


def many_elements(is_dry: bool) -> dict[str, Any]:
    """More than 2**31 elements in query, key, value and output; forward alone, a few heads of it compared."""
    batch, heads, tokens, dim = 1100, 16, 1920, 64
    need_memory(28)
    query = torch.empty(batch, heads, tokens, dim, device="cuda", dtype=torch.bfloat16)
    assert query.numel() > 2**31
    for part in query:
        part.normal_()
    with torch.no_grad():
        out = dropkey.attention(query, query, query, backend="triton", **DRAW)
    torch.cuda.synchronize()
    places = [0, batch // 2, batch - 1]
    worst = 0.0
    for place in places:
        # A batch entry of its own would draw another mask: the exported one is drawn for the whole, and cut.
        keep = keep_of(place, heads, tokens, query.device)
        part = query[place : place + 1, -1:].double()
        logits = torch.where(keep, part @ part.mT * dim**-0.5, -1e30)
        want = logits.softmax(-1) @ part
        error = ((out[place, -1].double() - want).abs().max() / want.abs().max()).item()
        worst = max(worst, error)
        assert error < 2**-6, f"batch entry {place}, last head: error {error:.2e} of the largest value"
    return {"elements": query.numel(), "worst": worst}


def keep_of(place: int, heads: int, tokens: int, device: torch.device) -> Tensor:
    """Return the mask of one batch entry's last head: the counter of a head is its number among all heads."""
    from dropkey.philox import philox4x32, seed_tensor

    seed = seed_tensor(DRAW["seed"], device)
    calls, queries = torch.arange(tokens // 8, device=device), torch.arange(tokens, device=device)[:, None]
    number = torch.full_like(calls[:1], place * heads + heads - 1)
    words = philox4x32((calls, queries, number, torch.zeros_like(number)), seed)
    halves = [half for word in words for half in (word & 0xFFFF, word >> 16)]
    return torch.stack(halves, -1).flatten(-2) >= round(DRAW["drop_ratio"] * 65536)


def ours(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return dropkey.attention(query, key, value, backend="triton", **DRAW)
