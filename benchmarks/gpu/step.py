"""Section ``step``: a training step of a ViT, with and without a regularizer, eager and compiled."""

import time
from functools import partial
from typing import Any

import torch
from torch import nn

import dropkey
from benchmarks.gpu.kernels import device, with_outcomes
from benchmarks.gpu.record import NotHere
from benchmarks.gpu.stopwatch import facts_of, interleaved, peak_bytes, warmed
from benchmarks.gpu.workers import failure, now_at

__all__ = ["check"]

BATCH = 128


def check(case: dict[str, Any], is_dry: bool) -> dict[str, Any]:
    """Time a step of every arm of one model."""
    until = time.monotonic() + case["left"]
    torch.set_float32_matmul_precision("high")
    runs, hosts, peaks, errors, first = {}, {}, {}, {}, {}
    for name in case["arms"]:
        if name in case["skip"]:
            continue
        now_at(case, name)
        try:
            began = time.monotonic()
            run_one = step_of(case, name, is_dry)
            run_one()
            first[name] = round(time.monotonic() - began, 2)
            hosts[name] = warmed(run_one, 0 if is_dry else 3)
            peaks[name] = peak_bytes(run_one)
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
    times = interleaved(runs, hosts, 1 if is_dry else 10, lambda: time.monotonic() > until)
    base = times["none"].median if "none" in times else None
    rows = [
        facts_of(
            timed,
            arm=name,
            ratio=round(timed.median / base, 4) if base else None,
            peak_mib=None if peaks[name] is None else round(peaks[name] / 2**20),
            first_step_s=first[name],
        )
        for name, timed in times.items()
    ]
    return with_outcomes({"state": "measured", "rows": rows, "errors": errors})


def step_of(case: dict[str, Any], arm: str, is_dry: bool):
    """Return one training step."""
    try:
        import timm
    except ImportError as error:
        raise NotHere(f"timm is not installed: {error}") from None
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "num_heads": 3, "depth": 2, "num_classes": 10}
    torch.manual_seed(0)
    model = timm.create_model(case["model"], **(small if is_dry else {})).to(device()).train()
    if ARMS[arm] is not None:
        dropkey.apply(model, ARMS[arm])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=torch.cuda.is_available())
    size, batch = (32, 2) if is_dry else (224, BATCH)
    images = torch.randn(batch, 3, size, size, device=device())
    labels = torch.randint(10, (batch,), device=device())
    return partial(step, torch.compile(model) if case["compiled"] else model, optimizer, images, labels)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor) -> None:
    with torch.autocast(images.device.type, torch.bfloat16):
        loss = nn.functional.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


ARMS = {
    "none": None,
    "dropkey 0.3": dropkey.DropKey(0.3),
    "token 0.5, constant": dropkey.DropKey(0.5, schedule="constant", pattern="token"),
    "dropout 0.3": dropkey.AttentionDropout(0.3),
}
