"""All options of a training run, as plain data."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from dropkey.errors import ArgumentError, did_you_mean
from dropkey.patterns import PATTERNS, Pattern
from dropkey.regularizers import AttentionDropout, DropKey, Regularizer
from dropkey.schedules import Schedule, check_drop_ratio

__all__ = ["TrainConfig", "build_regularizer", "config_from"]


def option(default: Any, help: str) -> Any:
    """Declare an option with the line that ``--help`` shows for it."""
    return dataclasses.field(default=default, metadata={"help": help})


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Options of ``dropkey train``; the help of each is in its field's metadata.

    Raises:
        ArgumentError: a value that no run can use; the message names the option.
    """

    data: str = option("digits", "where the images come from: digits, folder")
    data_dir: str | None = option(None, "folder of the images; for --data folder: train/<class>/ and val/<class>/")
    model: str | None = option(None, "any timm model name; by default a small ViT that fits the images")
    img_size: int | None = option(None, "side of the model's input in pixels; by default the model's own")
    pretrained: bool = option(False, "start from timm's pretrained weights (downloaded)")
    weights: str | None = option(
        None, "start from the weights in this local file (safetensors or torch, no code is run)"
    )

    regularizer: Literal["none", "dropout", "dropout_renormalized", "dropkey"] = option(
        "dropkey", "what acts on attention in training"
    )
    drop_ratio: float = option(0.1, "share of keys (dropkey) or weights (dropout) dropped in the first block")
    schedule: str = option(
        "linear_decay",
        "drop ratio over depth: linear_decay, constant, linear_growth, cosine_decay, or ratios with commas between",
    )
    pattern: str = option("element", "which keys are dropped together: element, column, token, block, cross")
    window_size: int | None = option(None, "side of the windows of block and cross, an odd number of patches")
    finetune_epochs: int = option(0, "train this many of the last epochs without dropping, to align with evaluation")

    epochs: int = option(15, "passes over the training images")
    batch_size: int = option(64, "images a step and process")
    lr: float = option(3e-3, "highest learning rate, of AdamW")
    weight_decay: float = option(0.05, "weight decay, not on norms and biases")
    warmup_epochs: int = option(2, "epochs in which the learning rate rises, before it falls along a cosine")
    label_smoothing: float = option(0.0, "share of the target spread over all classes")
    drop_path: float = option(0.0, "share of residual branches dropped in the last block, rising with depth")
    seed: int = option(0, "seed of everything random")

    devices: int = option(1, "processes, one a GPU where there are any")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = option("32-true", "arithmetic of the model")
    workers: int | None = option(None, "processes that read images; by default 0 for digits, else up to 4")
    threads: int | None = option(None, "threads of a process on the CPU; by default 1 for models below 1M parameters")
    output: str | None = option(None, "run folder; by default a fresh one below runs/")

    def __post_init__(self) -> None:
        check_drop_ratio(self.drop_ratio)
        for name in ("epochs", "batch_size", "devices"):
            _require(getattr(self, name) >= 1, name, "1 or more", self)
        for name in ("weight_decay", "finetune_epochs", "warmup_epochs", "seed"):
            _require(getattr(self, name) >= 0, name, "0 or more", self)
        for name in ("label_smoothing", "drop_path"):
            _require(0 <= getattr(self, name) < 1, name, "in [0, 1)", self)
        _require(0 < self.lr < float("inf"), "lr", "above 0", self)
        _require(self.finetune_epochs <= self.epochs, "finetune_epochs", f"at most --epochs {self.epochs}", self)
        _require(self.img_size is None or self.img_size >= 1, "img_size", "1 or more", self)
        _require(self.threads is None or self.threads >= 1, "threads", "1 or more", self)
        _require(self.workers is None or self.workers >= 0, "workers", "0 or more", self)
        if self.pretrained and self.weights:
            raise ArgumentError("--pretrained and --weights are two sources of weights: leave one out")
        build_regularizer(self)


def build_regularizer(config: TrainConfig) -> Regularizer | None:
    """Return what the options say should act on attention, or None."""
    schedule = _schedule(config.schedule)
    pattern = _pattern(config.pattern, config.window_size)
    if config.regularizer == "none":
        return None
    if config.regularizer == "dropkey":
        return DropKey(config.drop_ratio, schedule, pattern)
    return AttentionDropout(config.drop_ratio, schedule, renormalize=config.regularizer == "dropout_renormalized")


def config_from(values: Mapping[str, Any]) -> TrainConfig:
    """Return the config of a mapping such as a run's config.yaml.

    Raises:
        ArgumentError: a key that is no option, or a value that no run can use.
    """
    known = [field.name for field in dataclasses.fields(TrainConfig)]
    for name in values:
        if name not in known:
            raise ArgumentError(f"the config has an unknown option {name!r}{did_you_mean(str(name), known)}")
    return TrainConfig(**values)


def _require(condition: bool, name: str, wanted: str, config: TrainConfig) -> None:
    if not condition:
        raise ArgumentError(f"--{name.replace('_', '-')} must be {wanted}, got {getattr(config, name)!r}")


def _schedule(text: str) -> Schedule:
    """Read a schedule's name, or ratios with commas between."""
    if not any(mark in text for mark in ",.0123456789"):
        return text
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ArgumentError(f"--schedule takes a name or ratios with commas between, got {text!r}") from None


def _pattern(name: str, window_size: int | None) -> str | Pattern:
    if window_size is None:
        return name
    if name not in ("block", "cross"):
        raise ArgumentError(f"--window-size belongs to the patterns block and cross, not to {name!r}")
    return PATTERNS[name](window_size)  # type: ignore[call-arg]  # both of these take one
