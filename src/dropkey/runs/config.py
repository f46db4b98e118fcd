"""What a run of any task is configured with, as plain data: pieces from which a task makes its config."""

import dataclasses
import math
from collections.abc import Collection
from typing import Literal

from dropkey.errors import ArgumentError
from dropkey.runs.numbers import NonNegative, NonNegativeInt, Positive, PositiveInt, Share
from dropkey.runs.options import Options, one_of, option
from dropkey.runs.regularizer_options import RegularizerOptions

__all__ = ["OptimizationOptions", "RunConfig", "RunOptions"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizationOptions(Options):
    """How weights are learned: AdamW, with a rate that rises and then falls."""

    epochs: int = option(15, "passes over the training data", group="optimization", kind=PositiveInt)
    batch_size: int = option(64, "examples per step and process", group="optimization", kind=PositiveInt)
    accumulate: int = option(1, "gradient accumulation steps", group="optimization", kind=PositiveInt)
    lr: float = option(1e-3, "peak learning rate of AdamW", group="optimization", kind=Positive)
    warmup_epochs: float = option(
        2, "epochs, or a part of one, in which the rate rises before it falls", group="optimization", kind=NonNegative
    )
    lr_schedule: Literal["cosine", "wsd", "step"] = option(
        "cosine",
        "how the rate falls: along a cosine; wsd (warm-up, stable, decay): in the last quarter alone, linearly; "
        "step: to a tenth",
        group="optimization",
    )
    lr_drop_epoch: int = option(
        0,
        "epochs before the rate falls to a tenth",
        group="optimization",
        kind=NonNegativeInt,
        when=(one_of("lr_schedule", "step"),),
        shown="two thirds of them",
    )
    weight_decay: float = option(0.05, "weight decay, not on norms and biases", group="optimization", kind=NonNegative)
    clip_grad: float = option(0.0, "clip the gradient norm to this; 0 disables", group="optimization", kind=NonNegative)
    evaluate_every: int = option(
        1,
        "epochs from one evaluation to the next; the number of epochs must be a multiple",
        group="optimization",
        kind=PositiveInt,
    )
    ema: float = option(
        0.0, "decay of averaged weights, which are then evaluated; 0 for none", group="optimization", kind=Share
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions(Options):
    """Where and how a run computes, and what it may lose."""

    seed: int = option(0, "seed of everything random", kind=NonNegativeInt)
    devices: int = option(1, "number of processes (one per GPU)", kind=PositiveInt)
    strategy: Literal["ddp", "fsdp"] = option(
        "ddp", "several processes hold a copy of the model each (ddp), or a part of it each (fsdp: large models)"
    )
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = option("32-true", "arithmetic of the model")
    workers: int = option(0, "processes that read the data, beside each training process", kind=NonNegativeInt)
    threads: int = option(
        0,
        "CPU threads per process",
        kind=NonNegativeInt,
        shown="0, which means 1 for models below 1M parameters, else torch's own number",
    )
    save_seconds: float = option(60.0, "most seconds of training that a crash can cost", kind=NonNegative)
    attention_every: int = option(
        0,
        "epochs from one look at attention to the next: measures and overlays in RUN/attention and TensorBoard, and "
        "maps for dropkey diagnose RUN --over-training",
        kind=NonNegativeInt,
        shown="0, never",
    )
    output: str = option("", "run folder", takes="DIR", shown="a fresh one below runs/")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(RegularizerOptions, OptimizationOptions, RunOptions):
    """What every task's config has; a task adds options of its own and says what ``data`` and ``model`` may be.

    Raises:
        ArgumentError: values that no run can use, or that exclude each other; the message names the option.
    """

    task: str = option("", "what is trained")
    data: str = option("", "source of the data", group="data")
    data_dir: str = option("", "folder of the data", group="data")
    model: str = option("", "name of the model", group="model")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.finetune_epochs > self.epochs:
            raise ArgumentError(f"--finetune-epochs ({self.finetune_epochs}) exceeds --epochs ({self.epochs})")
        if self.lr_drop_epoch >= self.epochs:
            raise ArgumentError(f"--lr-drop-epoch ({self.lr_drop_epoch}) must be below --epochs ({self.epochs})")
        if self.epochs % self.evaluate_every:
            raise ArgumentError(
                f"--epochs ({self.epochs}) must be a multiple of --evaluate-every ({self.evaluate_every}): the last "
                "epoch is evaluated"
            )
        if self.strategy == "fsdp" and self.ema:
            raise ArgumentError("--ema averages whole models and --strategy fsdp shards them: leave one out")
        if self.strategy == "fsdp" and self.attention_every:
            raise ArgumentError("--attention-every runs whole models and --strategy fsdp shards them: leave one out")
        if self.strategy == "fsdp" and self.precision == "16-mixed":
            raise ArgumentError("--precision 16-mixed scales gradients as a whole: --strategy fsdp takes bf16-mixed")

    @property
    def fused_steps(self) -> bool:
        """Whether AdamW changes all weights in one call; in mixed precision that would leave no room for clipping."""
        return self.precision == "32-true"

    def refuse_futile(self, asked: Collection[str]) -> None:
        """Raise an ArgumentError for an option that was asked for and that the number of epochs leaves no room for."""
        if "warmup_epochs" in asked and self.warmup_epochs and self.warmup_epochs >= self.epochs:
            raise ArgumentError(
                f"--warmup-epochs ({self.warmup_epochs}) must be below --epochs ({self.epochs}): then the rate falls"
            )
        if "finetune_epochs" in asked and self.finetune_epochs == self.epochs:
            raise ArgumentError(
                f"--finetune-epochs ({self.finetune_epochs}) must be below --epochs ({self.epochs}): nothing would be "
                "dropped in any"
            )


def short_warmup(epochs: int, wanted: float) -> float:
    """Return a warm-up that leaves most of a short run to the falling rate: at most a quarter of its epochs."""
    return min(wanted, math.ceil(epochs / 4), epochs - 1)
