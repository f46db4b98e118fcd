"""Section ``tune``: which tile of each kernel is the fastest, and how far the default is from it."""

import contextlib
import time
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.kernels import call_of, design, device, need_gpu, need_kernels, trust_kernels
from benchmarks.gpu.record import NotHere
from benchmarks.gpu.stopwatch import interleaved, warmed
from benchmarks.gpu.workers import failure, now_at

__all__ = ["check"]


def check(case: dict[str, Any], is_dry: bool) -> dict[str, Any]:
    """Compile one tile (where the case has an index), or time all of them."""
    need_kernels()
    trust_kernels()  # a tile that is wrong must fail here, not be replaced
    tiles, default = tiles_of(case["kernel"], case["size"][3], is_dry)
    tensors, grad_out = inputs(case["size"])
    if "index" in case:
        need_gpu()
        if case["index"] >= len(tiles):
            raise NotHere(f"there are {len(tiles)} tiles")
        tile = tiles[case["index"]]
        warmed(runner(case["kernel"], tile, tensors, grad_out), 1)
        return {"state": "measured", "tile": list(tile)}
    return timed(case, tiles, default, tensors, grad_out, is_dry)


def timed(
    case: dict[str, Any], tiles: list[Any], default: Any, tensors: list[Tensor], grad_out: Tensor, is_dry: bool
) -> dict[str, Any]:
    """Time every tile; of a backward kernel, the whole of backward with the other kernel's tile as it is."""
    until = time.monotonic() + case["left"]
    runs, hosts, errors = {}, {}, {}
    for tile in tiles:
        name = " ".join(map(str, tile))
        if name in case["skip"]:
            continue
        now_at(case, name)
        run_one = runner(case["kernel"], tile, tensors, grad_out)
        try:
            hosts[name] = warmed(run_one, 1 if is_dry else 2)
            runs[name] = run_one
        except NotHere:
            raise
        except Exception as error:
            facts = failure(error)
            if facts.get("poisoned"):
                return {**facts, "culprit": name}
            errors[name] = facts["error"]
        if time.monotonic() > until:
            break
    now_at(case, "")
    times = interleaved(runs, hosts, 1 if is_dry else 12, lambda: time.monotonic() > until)
    rows = sorted(({"tile": name, **one.facts()} for name, one in times.items()), key=lambda row: row["median_ms"])
    own = next((row["median_ms"] for row in rows if row["tile"] == " ".join(map(str, default))), None)
    facts = {"rows": rows, "errors": errors, "default": list(default), "winner": rows[0]["tile"] if rows else None}
    facts["default_over_winner"] = round(own / rows[0]["median_ms"], 3) if own else None
    if not rows:
        return {"state": "fail", "error": "no tile ran", **facts}
    return {"state": "measured", **facts}


def tiles_of(kernel: str, dim: int, is_dry: bool) -> tuple[list[Any], Any]:
    """Return the candidates and the default."""
    from dropkey.ops.triton.launch import current_gpu
    from dropkey.ops.triton.tiles import INTERPRETED, candidate_tiles, default_tile

    if is_dry or not torch.cuda.is_available():
        return [INTERPRETED], INTERPRETED
    gpu = current_gpu(torch.device("cuda", torch.cuda.current_device()))
    try:
        return candidate_tiles(kernel, dim, False, gpu), default_tile(kernel, dim, False, gpu)
    except KeyError as error:
        raise NotHere(f"this version has no kernel {error}") from None


def inputs(size: tuple[int, ...]) -> tuple[list[Tensor], Tensor]:
    """Return query, key and value as a model has them, and the gradient of the output."""
    tokens, batch, heads, dim = size
    packed = torch.randn(batch, tokens, 3, heads, dim, device=device()).bfloat16().permute(2, 0, 3, 1, 4)
    grad_out = torch.randn(batch, tokens, heads, dim, device=device()).bfloat16().transpose(1, 2)
    return [tensor.detach().requires_grad_() for tensor in packed], grad_out


def runner(kernel: str, tile: Any, tensors: list[Tensor], grad_out: Tensor):
    """Return forward alone, or backward alone, with one kernel's tile forced."""
    backend, seed = design(""), torch.full((), 11, dtype=torch.int64, device=device())
    call = call_of(tensors, seed=seed)
    kept: list[Tensor] = []

    def forward() -> None:
        with forced(kernel, tile), torch.no_grad():
            backend.attend(call)

    def backward() -> None:
        with forced(kernel, tile):
            if not kept:
                kept.append(backend.attend(call))
            torch.autograd.grad(kept[0], tensors, grad_out, retain_graph=True)

    return forward if kernel == "forward" else backward


def forced(kernel: str, tile: Any) -> contextlib.AbstractContextManager[None]:
    """Return a context in which a kernel uses one tile."""
    from dropkey.ops.triton import launch

    try:
        return launch.forced_tile(kernel, tile)
    except AttributeError as error:
        raise NotHere(f"this version cannot force a tile: {error}") from None
