"""What acts on attention, as options: pieces that every task and ``dropkey verify`` reuse."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from dropkey.errors import ArgumentError, did_you_mean
from dropkey.patterns import PATTERNS, Pattern, named_pattern, taking
from dropkey.regularizers import AttentionDropout, DropKey, DropRegularizer, LocalityAttention, ReAttention
from dropkey.runs.numbers import NonNegative, NonNegativeInt, PositiveShare, Share
from dropkey.runs.options import Options, When, one_of, option, other_than
from dropkey.schedules import Schedule, check_drop_ratio

__all__ = [
    "PARTS",
    "PartOptions",
    "ReAttentionOptions",
    "RegularizerOptions",
    "build_dropkey",
    "build_locality_attention",
    "build_re_attention",
    "build_regularizer",
    "parts_of",
    "pattern_defaults",
]

PARTS = ("encoder", "decoder", "cross")
_SOME = other_than("regularizer", "none")
_WITH_WINDOWS = When("pattern", " or ".join(taking("window_size")), lambda pattern: pattern in taking("window_size"))
_BY_KEY = one_of("pattern", "element")


def _is_a_name(schedule: str) -> bool:
    return not any(mark in schedule for mark in ",.0123456789")


_BY_NAME = When("schedule", "by name", _is_a_name)  # a list of ratios leaves nothing to scale


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegularizerOptions(Options):
    """DropKey, a baseline, or nothing on attention."""

    regularizer: Literal["none", "dropout", "dropout_renormalized", "dropkey"] = option(
        "dropkey", "what acts on attention in training", group="regularizer"
    )
    drop_ratio: float = option(
        0.1,
        "share of keys (or, by dropout, of attention weights) dropped in the first block",
        group="regularizer",
        kind=Share,
        when=(_SOME, _BY_NAME),
    )
    schedule: str = option(
        "linear_decay",
        "drop ratio over depth: linear_decay, constant, linear_growth, cosine_decay, or a ratio for each block, "
        "separated by commas",
        group="regularizer",
        takes="NAME",
        when=(_SOME,),
    )
    pattern: str = option(
        "element",
        f"which keys are dropped together: {', '.join(PATTERNS)}",
        group="regularizer",
        takes="NAME",
        when=(one_of("regularizer", "dropkey"),),
    )
    window_size: int = option(
        3, "side of the windows in patches, an odd number", group="regularizer", when=(_WITH_WINDOWS,)
    )
    top_share: float = option(
        1.0,
        "share of the keys that can be dropped: those with the largest logits of each query; 1 for all",
        group="regularizer",
        kind=PositiveShare,
        when=(one_of("regularizer", "dropkey"), _BY_KEY),
    )
    finetune_epochs: int = option(
        0,
        "train this many of the last epochs without dropping, to align with evaluation",
        group="regularizer",
        kind=NonNegativeInt,
        when=(_SOME,),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        build_regularizer(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartOptions(Options):
    """Which attention the regularizer acts on, for models with an encoder and a decoder."""

    where: str = option(
        "encoder,decoder,cross",
        "attention that the regularizer acts on: self-attention of the encoder, self-attention of the decoder, "
        "cross-attention",
        group="regularizer",
        takes="KINDS",
        several=",".join,
        when=(_SOME,),
        shown="all of it: encoder,decoder,cross",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        parts_of(self.where)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReAttentionOptions(Options):
    """What changes plain self-attention in evaluation too: Re-attention and locality self-attention."""

    re_attention: str = option(
        "none",
        "DeepViT's mixing of attention maps over heads: none, all, or the number of last blocks",
        group="regularizer",
        takes="BLOCKS",
    )
    map_similarity_loss: float = option(
        0.0,
        "weight of DeepViT's loss on how alike the attention maps of neighboring blocks are; 0 for none",
        group="regularizer",
        kind=NonNegative,
    )

    locality_attention: Literal["none", "temperature", "full"] = option(
        "none",
        "locality self-attention: a learned temperature for every head, and with full no token attends to itself",
        group="regularizer",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        build_re_attention(self)


def parts_of(where: str) -> list[str]:
    """Return the parts that ``--where`` names, or raise an ArgumentError."""
    parts = [part.strip() for part in where.split(",")]
    for part in parts:
        if part not in PARTS:
            raise ArgumentError(f"--where takes {', '.join(PARTS)}, got {part!r}{did_you_mean(part, PARTS)}")
    return parts


def build_dropkey(options: RegularizerOptions) -> DropKey:
    """Return DropKey as the options describe it."""
    try:
        top_share = options.top_share if _BY_KEY.test(options.pattern) else 1.0
        return DropKey(options.drop_ratio, _schedule(options.schedule), _pattern(options), top_share)
    except ArgumentError as error:
        raise ArgumentError(_flags_of(str(error))) from None


def build_regularizer(options: RegularizerOptions) -> DropRegularizer | None:
    """Return what the options say should act on attention, or None."""
    dropkey = build_dropkey(options)  # checks the options of all of them
    if options.regularizer in ("none", "dropkey"):
        return dropkey if options.regularizer == "dropkey" else None
    renormalize = options.regularizer == "dropout_renormalized"
    return AttentionDropout(dropkey.drop_ratio, dropkey.schedule, renormalize)


def build_re_attention(options: ReAttentionOptions) -> ReAttention | None:
    """Return the Re-attention that the options ask for, or None."""
    if options.re_attention in ("none", "all"):
        return ReAttention() if options.re_attention == "all" else None
    if not options.re_attention.isdecimal() or int(options.re_attention) < 1:
        raise ArgumentError(f"--re-attention must be none, all, or a number of blocks, got {options.re_attention!r}")
    return ReAttention(last=int(options.re_attention))


def build_locality_attention(options: ReAttentionOptions) -> LocalityAttention | None:
    """Return the locality self-attention that the options ask for, or None."""
    wanted = options.locality_attention
    return None if wanted == "none" else LocalityAttention(mask_diagonal=wanted == "full")


def pattern_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the default window of the pattern that is given, if it takes one."""
    pattern = PATTERNS.get(given.get("pattern", ""))
    return {"window_size": pattern().window_size} if pattern and "window_size" in pattern.options() else {}  # type: ignore[attr-defined]


def _flags_of(message: str) -> str:
    """Name an option as the command line does where a message begins with its field."""
    first, space, rest = message.partition(" ")
    return (
        f"--{first.replace('_', '-')}{space}{rest}" if first in ("drop_ratio", "window_size", "top_share") else message
    )


def _schedule(text: str) -> Schedule:
    """Read a schedule's name, or a ratio for each block."""
    if _is_a_name(text):
        return text
    try:
        return [check_drop_ratio(float(part)) for part in text.split(",")]
    except ArgumentError as error:
        raise ArgumentError(f"--schedule: {error}") from None
    except ValueError:
        raise ArgumentError(f"--schedule takes a name or ratios separated by commas, got {text!r}") from None


def _pattern(options: RegularizerOptions) -> Pattern:
    pattern = named_pattern(options.pattern)
    windows: dict[str, Any] = {"window_size": options.window_size} if _WITH_WINDOWS.test(pattern.name) else {}
    return dataclasses.replace(pattern, **windows)
