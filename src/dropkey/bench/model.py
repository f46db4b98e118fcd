"""A whole training step of a timm model, with and without a regularizer on its attention."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn

import dropkey.models  # noqa: F401  registers our models with timm
from dropkey.adapters.apply import apply
from dropkey.bench.timing import interleaved
from dropkey.errors import ArgumentError, did_you_mean
from dropkey.ops.dispatch import backends, is_available
from dropkey.regularizers import AttentionDropout, DropKey, ReAttention, Regularizer

__all__ = ["bench_model"]


def bench_model(
    name: str = "vit_small_patch16_224",
    *,
    batch_size: int = 16,
    precision: Literal["32-true", "bf16-mixed"] = "32-true",
    drop_ratio: float = 0.3,
    rounds: int = 7,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Time forward, backward and an AdamW step on random images, interleaved.

    Args:
        name: timm's name of the model.
        batch_size: images in a step.
        precision: "32-true", or "bf16-mixed": the forward pass under autocast to bfloat16.
        drop_ratio: in (0, 1).
        rounds: timed rounds.
        say: called with what is being measured.

    Returns:
        One row per arm: plain data for JSON. The first is the model without a regularizer, the baseline of the ratios.

    Raises:
        ArgumentError: no such timm model.
    """
    if not timm.is_model(name):
        raise ArgumentError(f"timm has no model {name!r}{did_you_mean(name, timm.list_models())}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    arms = {label: _model(name, regularizer, backend).to(device) for label, regularizer, backend in _arms(drop_ratio)}
    images, labels = _batch(next(iter(arms.values())), batch_size, device)
    say(f"measuring a training step of {name}, batch {batch_size}, {precision}")
    steps = {
        label: partial(_step, model, _optimizer(model), images, labels, precision == "bf16-mixed")
        for label, model in arms.items()
    }
    times = interleaved(steps, rounds)
    return [
        {
            "way": label,
            "model": name,
            "batch_size": batch_size,
            "precision": precision,
            "median_ms": round(time.median_ms, 2),
            "p10_ms": round(time.low_ms, 2),
            "p90_ms": round(time.high_ms, 2),
            "ratio": round(time.ratio, 4),
        }
        for label, time in times.items()
    ]


def _arms(drop_ratio: float) -> Sequence[tuple[str, Regularizer | ReAttention | None, str]]:
    working = [name for name in backends() if name != "reference" and is_available(name)]
    element = [(f"dropkey element on {b}", DropKey(drop_ratio), b) for b in working]
    return [
        ("no regularizer", None, "auto"),
        ("dropout of attention weights", AttentionDropout(drop_ratio), "auto"),
        *element,
        ("dropkey token, constant 0.5", DropKey(0.5, schedule="constant", pattern="token"), "auto"),
        ("Re-attention, all blocks", ReAttention(), "auto"),
    ]


def _model(name: str, regularizer: Regularizer | ReAttention | None, backend: str) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name)
    assert isinstance(model, nn.Module)
    if regularizer is not None:
        apply(model, regularizer, backend=backend)
    return model.train()


def _batch(model: Any, batch_size: int, device: str) -> tuple[Tensor, Tensor]:
    images = torch.randn(batch_size, *model.pretrained_cfg["input_size"], device=device)
    return images, torch.randint(model.num_classes, (batch_size,), device=device)


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-4)


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, is_mixed: bool) -> None:
    with torch.autocast(images.device.type, torch.bfloat16, enabled=is_mixed):
        loss = nn.functional.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
