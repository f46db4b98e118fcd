"""All options of a training run, as plain data."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import yaml

from dropkey.errors import ArgumentError, did_you_mean
from dropkey.patterns import PATTERNS, Pattern, named_pattern, taking
from dropkey.regularizers import AttentionDropout, DropKey, ReAttention, Regularizer
from dropkey.schedules import Schedule, check_drop_ratio

__all__ = [
    "PATTERN_HELP",
    "WINDOW_SIZE_HELP",
    "TrainConfig",
    "build_re_attention",
    "build_regularizer",
    "check_ranges",
    "config_from",
    "option",
    "parse_model_kwargs",
]

PATTERN_HELP = f"which keys are dropped together: {', '.join(PATTERNS)}"
WINDOW_SIZE_HELP = f"side of the windows of {' and '.join(taking('window_size'))}, an odd number of patches"

_SAID_ELSEWHERE = {
    "num_classes": "known from the data",
    "img_size": "an option of its own: --img-size",
    "drop_path_rate": "an option of its own: --drop-path",
    "pretrained": "an option of its own: --pretrained",
}


def option(
    default: Any, help: str, *, at_least: float | None = None, above: float | None = None, below: float | None = None
) -> Any:
    """Declare an option with the line that ``--help`` shows for it, and the numbers that it accepts."""
    limits = {"at_least": at_least, "above": above, "below": below}
    return dataclasses.field(default=default, metadata={"help": help, **limits})


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Options of ``dropkey train``; the help of each is in its field's metadata.

    None stands for a default that depends on the data, the model or the machine; a run's config.yaml has it filled in.

    Raises:
        ArgumentError: a value that no run can use; the message names the option.
    """

    data: str = option("digits", "digits, fashion_mnist, cifar10, cifar100, imagenet, or folder")
    data_dir: str | None = option(None, "folder of the images; for --data folder: train/<class>/ and val/<class>/")
    model: str | None = option(None, "any timm model name; by default a small ViT that fits the images")
    model_kwargs: str | None = option(None, "more for the model's constructor: depth=24,embed_dim=96")
    img_size: int | None = option(None, "side of the model's input in pixels; by default the model's own", at_least=1)
    pretrained: bool = option(False, "start from timm's pretrained weights (downloaded)")
    weights: str | None = option(None, "start from this local file (safetensors or torch; no code in it is run)")

    regularizer: Literal["none", "dropout", "dropout_renormalized", "dropkey"] = option(
        "dropkey", "what acts on attention in training"
    )
    drop_ratio: float = option(0.1, "share of keys (dropkey) or weights (dropout) dropped in the first block")
    schedule: str = option(
        "linear_decay",
        "drop ratio over depth: linear_decay, constant, linear_growth, cosine_decay, or ratios with commas between",
    )
    pattern: str = option("element", PATTERN_HELP)
    window_size: int | None = option(None, WINDOW_SIZE_HELP)
    re_attention: str | None = option(None, "DeepViT's mixing of attention maps over heads: all, or the last N blocks")
    map_similarity_loss: float = option(
        0.0, "weight of DeepViT's loss, how alike the attention maps of neighboring blocks are; 0 for none", at_least=0
    )
    finetune_epochs: int = option(
        0, "train this many of the last epochs without dropping, to align with evaluation", at_least=0
    )

    epochs: int | None = option(None, "passes over the training images", at_least=1)
    batch_size: int | None = option(None, "images a step and process", at_least=1)
    accumulate: int = option(1, "batches whose gradients are added before a step", at_least=1)
    lr: float | None = option(None, "highest learning rate, of AdamW", above=0)
    warmup_epochs: int | None = option(
        None, "epochs in which the rate rises before it falls along a cosine", at_least=0
    )
    weight_decay: float | None = option(None, "weight decay, not on norms and biases", at_least=0)
    layer_decay: float | None = option(None, "factor on the rate for each block further from the head", above=0)
    clip_grad: float | None = option(None, "longest gradient, as a norm; 0 for any length", at_least=0)
    ema: float | None = option(
        None, "decay of averaged weights, which are then evaluated; 0 for none", at_least=0, below=1
    )
    drop_path: float | None = option(
        None, "share of residual branches dropped in the last block, rising with depth", at_least=0, below=1
    )
    label_smoothing: float | None = option(None, "share of the target spread over all classes", at_least=0, below=1)
    mixup: float | None = option(None, "alpha of mixup; 0 for none", at_least=0)
    cutmix: float | None = option(None, "alpha of cutmix; 0 for none", at_least=0)
    rand_augment: float | None = option(None, "magnitude of timm's RandAugment, up to 10; 0 for none", at_least=0)
    color_jitter: float | None = option(None, "strength of changes of brightness and color; 0 for none", at_least=0)
    random_erasing: float | None = option(None, "share of images with an erased rectangle", at_least=0, below=1)
    seed: int = option(0, "seed of everything random", at_least=0)

    devices: int = option(1, "processes, one a GPU where there are any", at_least=1)
    strategy: Literal["ddp", "fsdp"] = option(
        "ddp", "several processes hold a copy of the model each (ddp), or a share of it each (fsdp: large models)"
    )
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = option("32-true", "arithmetic of the model")
    workers: int | None = option(None, "processes that read images; by default 0 for digits, else up to 4", at_least=0)
    threads: int | None = option(
        None, "threads of a process on the CPU; by default 1 for models below 1M parameters", at_least=1
    )
    save_seconds: float = option(60.0, "seconds of training that a crash can cost at most", at_least=0)
    output: str | None = option(None, "run folder; by default a fresh one below runs/")

    def __post_init__(self) -> None:
        check_drop_ratio(self.drop_ratio)
        check_ranges(self)
        build_regularizer(self)
        build_re_attention(self)
        parse_model_kwargs(self.model_kwargs)
        self._check_sharding()
        if self.finetune_epochs > (self.epochs or math.inf):
            raise ArgumentError(f"--finetune-epochs {self.finetune_epochs} are more than --epochs {self.epochs}")
        if self.pretrained and self.weights:
            raise ArgumentError("--pretrained and --weights are two sources of weights: leave one out")
        if (self.mixup or self.cutmix) and (self.batch_size or 0) % 2:
            raise ArgumentError(f"--mixup and --cutmix pair images: --batch-size {self.batch_size} must be even")

    def _check_sharding(self) -> None:
        if self.strategy == "fsdp" and self.ema:
            raise ArgumentError("--ema averages whole models and --strategy fsdp shards them: leave one out")
        if self.strategy == "fsdp" and self.precision == "16-mixed":
            raise ArgumentError("--precision 16-mixed scales gradients as a whole: --strategy fsdp takes bf16-mixed")


def build_regularizer(config: TrainConfig) -> Regularizer | None:
    """Return what the options say should act on attention, or None."""
    schedule = _schedule(config.schedule)
    dropkey = DropKey(config.drop_ratio, schedule, _pattern(config.pattern, config.window_size))
    if config.regularizer == "none":
        return None
    if config.regularizer == "dropkey":
        return dropkey
    return AttentionDropout(config.drop_ratio, schedule, renormalize=config.regularizer == "dropout_renormalized")


def build_re_attention(config: TrainConfig) -> ReAttention | None:
    """Return the Re-attention that the options ask for, or None."""
    if config.re_attention is None:
        return None
    if config.re_attention == "all":
        return ReAttention()
    if not config.re_attention.isdecimal() or int(config.re_attention) < 1:
        raise ArgumentError(f"--re-attention takes all or a number of blocks, got {config.re_attention!r}")
    return ReAttention(last=int(config.re_attention))


def parse_model_kwargs(text: str | None, allowed: Sequence[str] = ()) -> dict[str, Any]:
    """Read ``depth=24,embed_dim=96``: values are read as in YAML, so numbers, true and false, or else words.

    Args:
        text: the pairs, with commas between.
        allowed: names that are options of their own elsewhere, and not where this is called.
    """
    kwargs: dict[str, Any] = {}
    for part in (text or "").split(",") if text else []:
        name, sign, value = (piece.strip() for piece in part.partition("="))
        if not sign or not name.isidentifier() or not value:
            raise ArgumentError(f"--model-kwargs takes name=value with commas between, got {part.strip()!r}")
        if name in _SAID_ELSEWHERE and name not in allowed:
            raise ArgumentError(f"--model-kwargs has {name}, which is {_SAID_ELSEWHERE[name]}")
        kwargs[name] = _plain_value(value)
    return kwargs


def _plain_value(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return value if isinstance(value, bool | int | float) else text


def config_from(values: Mapping[str, Any]) -> TrainConfig:
    """Return the config of a mapping such as a run's config.yaml.

    Raises:
        ArgumentError: a key that is no option, or a value that no run can use.
    """
    known = [field.name for field in dataclasses.fields(TrainConfig)]
    for name in values:
        if name not in known:
            raise ArgumentError(f"the config has an unknown option {name!r}{did_you_mean(str(name), known)}")
    try:
        return TrainConfig(**values)
    except TypeError as error:
        raise ArgumentError(f"the config has a value of the wrong type: {error}") from None


def check_ranges(config: Any) -> None:
    """Raise an ArgumentError for the first number of a config outside of what its option accepts."""
    for field in dataclasses.fields(config):
        value, limits = getattr(config, field.name), field.metadata
        low, above, below = limits["at_least"], limits["above"], limits["below"]
        if value is None or (low is None and above is None and below is None):
            continue
        fits = (low is None or value >= low) and (above is None or value > above) and (below is None or value < below)
        if not (fits and math.isfinite(value)):
            wanted = f"in [{low:g}, {below:g})" if below is not None else _above(low, above)
            raise ArgumentError(f"--{field.name.replace('_', '-')} must be {wanted}, got {value!r}")


def _above(low: float | None, above: float | None) -> str:
    return f"above {above:g}" if low is None else f"{low:g} or more"


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
    named_pattern(name)
    if name not in taking("window_size"):
        raise ArgumentError(
            f"--window-size belongs to the patterns {' and '.join(taking('window_size'))}, not to {name!r}"
        )
    return PATTERNS[name](window_size=window_size)  # type: ignore[call-arg]  # an option of this one
