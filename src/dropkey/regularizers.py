"""What to apply to a model: frozen descriptions, without any state."""

from dataclasses import dataclass

from dropkey import schedules
from dropkey.patterns import Pattern, named_pattern
from dropkey.schedules import Schedule, check_drop_ratio

__all__ = ["AttentionDropout", "DropKey", "Regularizer"]


@dataclass(frozen=True)
class Regularizer:
    """Base of the descriptions: a drop ratio and how it changes with depth.

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
        check_drop_ratio(self.drop_ratio)
        if isinstance(self.schedule, str):
            schedules.named(self.schedule)
        elif not callable(self.schedule):
            object.__setattr__(self, "schedule", tuple(check_drop_ratio(ratio) for ratio in self.schedule))

    def ratios(self, depth: int) -> list[float]:
        """Return the drop ratio of each of ``depth`` blocks."""
        return schedules.ratios(self.schedule, self.drop_ratio, depth)


@dataclass(frozen=True)
class DropKey(Regularizer):
    """Drop random keys before the softmax, in training only.

    Args:
        drop_ratio: see Regularizer.
        schedule: see Regularizer; the paper's ``linear_decay`` by default.
        pattern: which keys go together, a name or an object of ``dropkey.patterns``; the paper's is ``element``.

    Source: Li et al., DropKey for Vision Transformer, CVPR 2023 (arXiv 2208.02646).
    """

    pattern: str | Pattern = "element"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "pattern", named_pattern(self.pattern))


@dataclass(frozen=True)
class AttentionDropout(Regularizer):
    """Drop attention weights after the softmax, in training only: what DropKey is compared with.

    Args:
        drop_ratio: see Regularizer.
        schedule: see Regularizer.
        renormalize: False for torch's form (kept weights are multiplied by 1 / (1 - ratio)); True for the form of the
            DropKey paper's baseline (kept weights are divided by their sum, which passes no gradient).
    """

    renormalize: bool = False
