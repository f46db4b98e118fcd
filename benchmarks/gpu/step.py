"""Section ``step``: a training step of a ViT, with and without a regularizer, eager and compiled."""

import time
from functools import partial
from typing import Any

import torch
from torch import nn

import dropkey
from benchmarks.gpu.kernels import device, outcomes
from benchmarks.gpu.record import NotHere, Record
from benchmarks.gpu.stopwatch import facts_of, interleaved, peak_bytes, warmed
from benchmarks.gpu.workers import Worker, failure

__all__ = ["check", "run"]

BATCH = 128
SMALL, BASE = "vit_small_patch16_224", "vit_base_patch16_224"


def run(record: Record) -> None:
    """Measure model after model."""
    listed = [
        {"label": f"{SMALL}, eager", "model": SMALL, "arms": list(ARMS), "compiled": False},
        {"label": f"{SMALL}, compiled", "model": SMALL, "arms": ["none", "dropkey 0.3"], "compiled": True},
        {"label": f"{BASE}, eager", "model": BASE, "arms": list(ARMS), "compiled": False},
        {"label": f"{BASE}, compiled", "model": BASE, "arms": ["none", "dropkey 0.3"], "compiled": True},
    ]
    listed = listed[:1] if record.is_dry else listed
    record.plan(case["label"] for case in listed)
    for case in listed:
        if record.left < 4:
            break
        worker = Worker("step", record.is_dry)
        record.add(case["label"], **worker.ask({**case, "left": record.left - 3}, record.left - 1))
        worker.close()


def check(case: dict[str, Any], is_dry: bool) -> dict[str, Any]:
    """Time a step of every arm of one model."""
    until = time.monotonic() + case["left"]
    torch.set_float32_matmul_precision("high")
    runs, hosts, peaks, errors, first = {}, {}, {}, {}, {}
    for name in case["arms"]:
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
                return facts
            errors[name] = facts["error"]
        if time.monotonic() > until:
            break
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
    seen = outcomes()
    return {"state": "measured", "rows": rows, "errors": errors, **({"self_test": seen} if seen else {})}


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
