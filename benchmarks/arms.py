"""What a training step costs with each arm of a comparison: ``python benchmarks/arms.py --output FILE``

Forward, backward and an AdamW step on random images, in one thread; the arms run in turn, round after round, and the
ratio is the median over the rounds of an arm's time to that of none. Times are CPU times of the process, which other
programs on the machine disturb less than the clock on the wall.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dropkey
from dropkey.bench.report import write
from dropkey.models.timm_dropout import dropout_arguments
from dropkey.regularizers import Regularizer
from dropkey.tasks.classification.consistency import doubled, inconsistency

RATIO = 0.3
WARM_UP = 2
Arm = tuple[Regularizer | None, float, float, bool]  # a regularizer, patch drop, head drop, whether two passes agree
ARMS: dict[str, Arm] = {
    "none": (None, 0.0, 0.0, False),
    "dropkey": (dropkey.DropKey(RATIO), 0.0, 0.0, False),
    "dropkey:top-share=0.1": (dropkey.DropKey(RATIO, top_share=0.1), 0.0, 0.0, False),
    "dropkey:schedule=constant:drop-ratio=0.5:pattern=token": (
        dropkey.DropKey(0.5, "constant", "token"),
        0.0,
        0.0,
        False,
    ),
    "none:patch-drop=0.5": (None, 0.5, 0.0, False),
    "none:head-drop=0.5": (None, 0.0, 0.5, False),
    "none:locality-attention=temperature": (dropkey.LocalityAttention(mask_diagonal=False), 0.0, 0.0, False),
    "none:locality-attention=full": (dropkey.LocalityAttention(), 0.0, 0.0, False),
    "dropkey:consistency=1": (dropkey.DropKey(RATIO), 0.0, 0.0, True),
}


def main(name: str, batch_size: int, rounds: int, output: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    size = timm.get_pretrained_cfg(name).input_size
    images, labels = torch.randn(batch_size, *size), torch.randint(1000, (batch_size,))
    steps = {label: stepping(name, arm, images, labels) for label, arm in ARMS.items()}
    seconds: dict[str, list[float]] = {label: [] for label in ARMS}
    for number in range(WARM_UP + rounds):
        for label, step in steps.items():
            start = time.process_time()
            step()
            if number >= WARM_UP:
                seconds[label].append(time.process_time() - start)
    rows = [row(label, name, batch_size, times, seconds["none"]) for label, times in seconds.items()]
    for each in rows:
        print(f"{each['ratio']:7.3f}  {each['median_ms']:9.1f} ms  {each['way']}")
    if output:
        command = f"python benchmarks/arms.py --model {name} --batch-size {batch_size} --rounds {rounds}"
        write(rows, f"{command} --output {output}", Path(output))


def stepping(name: str, arm: Arm, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """Return a training step of a fresh model with this arm."""
    regularizer, patch_drop, head_drop, is_consistent = arm
    model = timm.create_model(name, **dropout_arguments(patch_drop, head_drop)).train()
    if regularizer is not None:
        dropkey.apply(model, regularizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    return partial(step, model, optimizer, images, labels, is_consistent)


def step(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, is_consistent: bool
) -> None:
    """Make a step."""
    if is_consistent:
        images, labels = doubled(images, labels)
    logits = model(images)
    loss = F.cross_entropy(logits, labels)
    optimizer.zero_grad()
    (loss + inconsistency(logits) if is_consistent else loss).backward()
    optimizer.step()


def row(label: str, name: str, batch_size: int, times: list[float], baseline: list[float]) -> dict[str, Any]:
    """Return what is written of an arm."""
    ratios = sorted(one / other for one, other in zip(times, baseline, strict=True))
    return {
        "way": label,
        "model": name,
        "batch_size": batch_size,
        "median_ms": round(1e3 * statistics.median(times), 2),
        "ratio": round(statistics.median(ratios), 4),
        "lowest_ratio": round(ratios[0], 4),
        "highest_ratio": round(ratios[-1], 4),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", default="")
    given = parser.parse_args()
    main(given.model, given.batch_size, given.rounds, given.output)
