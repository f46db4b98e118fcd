"""What to apply to a model: frozen descriptions, without any state."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from dropkey import schedules
from dropkey.arguments import check_count, check_flag, short
from dropkey.errors import ArgumentError
from dropkey.ops.reattention import check_norm
from dropkey.patterns import Element, Pattern, named_pattern
from dropkey.schedules import Schedule, check_base_ratio, check_drop_ratio

__all__ = [
    "REGULARIZERS",
    "AttentionDropout",
    "DropKey",
    "DropRegularizer",
    "LocalityAttention",
    "ReAttention",
    "Regularizer",
]


@dataclass(frozen=True)
class Regularizer:
    """Base of the descriptions: fields of plain data, which a handle's ``state_dict`` holds."""

    def ratios(self, depth: int) -> list[float]:
        """Return the drop ratio of each of ``depth`` blocks: 0 where nothing is dropped."""
        return [0.0] * depth

    def settled(self, depth: int) -> Self:
        """Return an equal description of plain data alone, for a model of ``depth`` blocks."""
        return self

    def fixed(self) -> tuple[object, ...]:
        """Return what cannot change once it is applied."""
        return (type(self),)


@dataclass(frozen=True)
class DropRegularizer(Regularizer):
    """Base of what drops in training: a drop ratio and how it changes with depth.

    Args:
        drop_ratio: base ratio in [0, 1), given to the schedule.
        schedule: name of a function in ``dropkey.schedules``, a function (drop_ratio, depth) -> ratios, or the ratios
            themselves, one a block (``drop_ratio`` is then not used).

    Raises:
        ArgumentError: a ratio outside [0, 1) or an unknown schedule.
    """

    drop_ratio: float = 0.1
    schedule: Schedule = "linear_decay"

    def __post_init__(self) -> None:
        object.__setattr__(self, "drop_ratio", check_base_ratio(self.drop_ratio))
        if isinstance(self.schedule, str):
            schedules.named(self.schedule)
        elif not callable(self.schedule):
            object.__setattr__(self, "schedule", tuple(map(check_drop_ratio, schedules.listed(self.schedule))))

    def ratios(self, depth: int) -> list[float]:
        """Return the drop ratio of each of ``depth`` blocks."""
        return schedules.ratios(self.schedule, self.drop_ratio, depth)

    def settled(self, depth: int) -> Self:
        """Return this with the ratios that a schedule which is a function gives."""
        return replace(self, schedule=self.ratios(depth)) if callable(self.schedule) else self


@dataclass(frozen=True)
class DropKey(DropRegularizer):
    """Drop random keys before the softmax, in training only.

    Args:
        drop_ratio: see DropRegularizer.
        schedule: see DropRegularizer; the paper's ``linear_decay`` by default.
        pattern: which keys go together, a name or an object of ``dropkey.patterns``; the paper's is ``element``.
        top_share: share of the keys, in (0, 1], that can be dropped at all: those with the largest logits of each
            query, at least one; ``drop_ratio`` is then the share dropped of these. Below 1 the drop depends on content,
            with pattern "element" alone: every logit is computed once more to choose, and no fused kernel does it.

    Raises:
        ArgumentError: see DropRegularizer; an unknown pattern; ``top_share`` outside (0, 1] or with another pattern.

    Source: Li et al., DropKey for Vision Transformer, CVPR 2023 (arXiv 2208.02646). ``top_share`` is the candidate
    region of AD-DROP (Yang et al., NeurIPS 2022, arXiv 2210.05883) and the hard masking of AttentionDrop (Baig et al.,
    2025, arXiv 2504.12088). Departures: AD-DROP ranks keys by attribution from a pass of its own, this by the logits
    of the same pass; AttentionDrop sets a dropped logit to 0, this removes the key, as AD-DROP does.
    """

    pattern: str | Pattern = "element"
    top_share: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "pattern", named_pattern(self.pattern))
        object.__setattr__(self, "top_share", _check_top_share(self.top_share))
        if self.top_share < 1 and not isinstance(self.pattern, Element):
            raise ArgumentError(f"top_share below 1 goes with pattern 'element', not {self.pattern}")


@dataclass(frozen=True)
class AttentionDropout(DropRegularizer):
    """Drop attention weights after the softmax, in training only: what DropKey is compared with.

    Args:
        drop_ratio: see DropRegularizer.
        schedule: see DropRegularizer.
        renormalize: False for torch's form (kept weights are multiplied by 1 / (1 - ratio)); True for the form of the
            DropKey paper's baseline (kept weights are divided by their sum, which passes no gradient).
    """

    renormalize: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("renormalize", self.renormalize)


@dataclass(frozen=True)
class ReAttention(Regularizer):
    """Mix attention maps over the heads after the softmax, in training and in evaluation, with learned parameters.

    It starts as no change at all: a weight that is learned from 0 leads from the plain maps to the mixed ones.

    Args:
        last: the last so many blocks with plain self-attention; all by default.
        norm: "batch" for the authors' form, "layer" for the one of popular reimplementations; see
            ``dropkey.ops.reattention.HeadMixing``.
        blocks: the places of the blocks, counted from 0 among those with plain self-attention, in place of ``last``.

    Raises:
        ArgumentError: an unknown norm, ``last`` below 1, negative or repeated places, or both ``last`` and ``blocks``.

    Source: Zhou et al., DeepViT, 2021 (arXiv 2103.11886). Departure: the start, so that a trained model converts
    without a jump; the authors' models in ``dropkey.models`` mix at once.
    """

    last: int | None = None
    norm: str = "batch"
    blocks: Sequence[int] | None = None

    def __post_init__(self) -> None:
        check_norm(self.norm)
        if self.last is not None and self.blocks is not None:
            raise ArgumentError("ReAttention takes last or blocks, not both")
        if self.last is not None:
            object.__setattr__(self, "last", check_count("last", self.last, 1))
        if self.blocks is not None:
            object.__setattr__(self, "blocks", _places(self.blocks))

    def fixed(self) -> tuple[object, ...]:
        """Return what cannot change once it is applied: the norm has parameters."""
        return type(self), self.norm

    def chosen(self, depth: int) -> list[int]:
        """Return the places of the blocks to mix, of ``depth`` blocks."""
        places = list(range(depth)[-(self.last or depth) :]) if self.blocks is None else list(self.blocks)
        wanted = max(self.last or 0, *(place + 1 for place in places))
        if wanted > depth:
            raise ArgumentError(f"{self} needs {wanted} blocks with plain self-attention, the model has {depth}")
        return places


@dataclass(frozen=True)
class LocalityAttention(Regularizer):
    """Locality self-attention, in training and in evaluation: a learned temperature, and no token sees itself.

    The temperature starts as the model's own: a factor of 1 on the logits of every head. The diagonal is hidden from
    the start, which changes what a trained model returns; with ``mask_diagonal=False`` it starts as no change at all.
    No map is computed for it: the attention that the model runs goes on, with a scaled query and a mask.

    Args:
        mask_diagonal: hide every token from itself, unless it may see nothing else; False for the temperature alone.

    Source: Lee et al., Vision Transformer for Small-Size Datasets, 2021 (arXiv 2112.13492). Departures: what is learned
    is a factor on the model's own scale instead of the scale itself; shifted patch tokenization, the other half of the
    paper, is another patch embedding and not here.
    """

    mask_diagonal: bool = True

    def __post_init__(self) -> None:
        check_flag("mask_diagonal", self.mask_diagonal)


REGULARIZERS: dict[str, type[Regularizer]] = {
    cls.__name__: cls for cls in (DropKey, AttentionDropout, ReAttention, LocalityAttention)
}


def _check_top_share(share: float) -> float:
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise ArgumentError(f"top_share must be a number in (0, 1], got {short(share)}")
    return float(share)


def _places(blocks: Sequence[int]) -> tuple[int, ...]:
    try:
        given = tuple(blocks)
    except TypeError:
        raise ArgumentError(f"blocks must be places counted from 0, as in [0, 1], got {short(blocks)}") from None
    places = tuple(sorted(check_count("a place in blocks", place) for place in given))
    if not places or len(set(places)) < len(places):
        raise ArgumentError(f"blocks must be different places counted from 0, got {list(places)}")
    return places
