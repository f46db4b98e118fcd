"""Section ``time``: forward, and forward and backward, of all contenders at one size."""

import time
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.contenders import contenders
from benchmarks.gpu.kernels import device, need_gpu, with_outcomes
from benchmarks.gpu.plans import FLEX
from benchmarks.gpu.record import NotHere
from benchmarks.gpu.stopwatch import facts_of, interleaved, peak_bytes, warmed
from benchmarks.gpu.workers import failure, now_at

__all__ = ["check"]

DATASHEET_TFLOPS = 989  # dense bfloat16 of an H100 SXM and of an H200
BASES = ("dropkey off", "sdpa flash", "sdpa cudnn", "sdpa by torch")


def check(case: dict[str, Any], is_dry: bool) -> dict[str, Any]:
    """Measure one size."""
    if "tokens" not in case:
        return large_product()
    until = time.monotonic() + case["left"]
    shape = (case["batch"], case["heads"], case["tokens"], case["dim"])
    # As a model has them: cut out of one projection.
    packed = torch.randn(case["batch"], case["tokens"], 3, case["heads"], case["dim"], device=device())
    query, key, value = packed.bfloat16().permute(2, 0, 3, 1, 4)
    leaves = [tensor.detach().requires_grad_() for tensor in (query, key, value)]
    grad_out = torch.randn(shape, device=device()).bfloat16().transpose(1, 2).contiguous().transpose(1, 2)
    built, errors = built_contenders(case, leaves)
    rows = []
    for direction in ("forward", "forward + backward"):
        runs, hosts, peaks = {}, {}, {}
        for name, attend in built.items():
            run_one = runner(attend, leaves, grad_out, direction == "forward")
            now_at(case, name)
            try:
                hosts[name] = warmed(run_one, 1 if is_dry else 3)
                peaks[name] = peak_bytes(run_one)
                runs[name] = run_one
            except Exception as error:
                facts = failure(error)
                if facts.get("poisoned"):
                    return {**facts, "culprit": name}
                errors[f"{name}, {direction}"] = facts["error"]
            if time.monotonic() > until:
                break
        now_at(case, "")
        times = interleaved(runs, hosts, 1 if is_dry else 25, lambda: time.monotonic() > until)
        rows += rows_of(case, direction, times, peaks)
        if time.monotonic() > until:
            break
    add_ratios(rows)
    return with_outcomes({"state": "measured", "rows": rows, "errors": errors})


def built_contenders(case: dict[str, Any], tensors: list[Tensor]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what can run here, and why the rest cannot."""
    built, errors = {}, {}
    for name, build in contenders().items():
        wanted = case["only"] or [other for other in contenders() if other != FLEX]
        if name not in wanted or name in case["skip"]:
            continue
        try:
            built[name] = build(tensors)
        except NotHere as reason:
            errors[name] = f"not run: {reason}"
        except Exception as error:
            errors[name] = failure(error)["error"]
    return built, errors


def runner(attend, leaves: list[Tensor], grad_out: Tensor, is_forward: bool):
    """Return one call."""

    def forward() -> None:
        with torch.no_grad():
            attend(*leaves)

    def both() -> None:
        torch.autograd.grad(attend(*leaves), leaves, grad_out)

    return forward if is_forward else both


def rows_of(case: dict[str, Any], direction: str, times: dict, peaks: dict) -> list[dict[str, Any]]:
    """Return a row a contender: time, rate and memory."""
    products = 4 if direction == "forward" else 14
    flops = products * case["batch"] * case["heads"] * case["tokens"] ** 2 * case["dim"]
    rows = []
    for name, timed in times.items():
        rate = flops / timed.median / 1e9
        share = round(rate / case["peak"], 3) if case["peak"] else None
        mib = None if peaks[name] is None else round(peaks[name] / 2**20, 1)
        more = {"tflops": round(rate, 1), "of_product": share, "peak_mib": mib}
        rows.append({"contender": name, "direction": direction, **facts_of(timed, **more)})
    return rows


def add_ratios(rows: list[dict[str, Any]]) -> None:
    """Add to every row its time over that of each base in the same direction."""
    medians = {(row["contender"], row["direction"]): row["median_ms"] for row in rows}
    for row in rows:
        for base in BASES:
            other = medians.get((base, row["direction"]))
            row[f"over {base}"] = round(row["median_ms"] / other, 3) if other else None


def large_product() -> dict[str, Any]:
    """Measure what the card reaches on a large product."""
    need_gpu()
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    host = warmed(lambda: a @ b)
    timed = interleaved({"product": lambda: a @ b}, {"product": host}, 20)["product"]
    rate = 2 * 8192**3 / timed.median / 1e9
    facts = {"tflops": round(rate, 1), "datasheet_tflops": DATASHEET_TFLOPS}
    return {"state": "measured", **facts_of(timed, **facts)}
