"""What a search varies: options of a run, each with the values that it may have."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dropkey.patterns import PATTERNS
from dropkey.runs.config import RunConfig
from dropkey.runs.options import idle_because, options_of

__all__ = ["Choice", "Dimension", "Range", "chosen_by", "space_of"]

_SPREAD = 4.0  # the rate may be as many times higher or lower than the recipe's
_SCHEDULES = ("linear_decay", "constant", "linear_growth", "cosine_decay")


@dataclass(frozen=True)
class Dimension(ABC):
    """One option that a search varies.

    Args:
        option: its name.
    """

    option: str

    @abstractmethod
    def chosen_by(self, trial: Any) -> Any:
        """Return the value that a trial of Optuna suggests."""


@dataclass(frozen=True)
class Choice(Dimension):
    """Any of a few values."""

    values: Sequence[Any]

    def chosen_by(self, trial: Any) -> Any:
        return trial.suggest_categorical(self.option, list(self.values))


@dataclass(frozen=True)
class Range(Dimension):
    """A number from ``low`` to ``high``, in steps, or on a logarithmic scale where ``step`` is None; of two digits."""

    low: float
    high: float
    step: float | None = None

    def chosen_by(self, trial: Any) -> float:
        value = trial.suggest_float(self.option, self.low, self.high, step=self.step, log=self.step is None)
        return float(f"{value:.2g}")


def space_of(base: RunConfig, given: Mapping[str, Any]) -> list[Dimension]:
    """Return what is varied, what others depend on first.

    Args:
        base: options of a run where nothing is varied.
        given: options that the user has fixed.
    """
    dimensions: list[Dimension] = [
        Choice("regularizer", ["none", "dropkey"]),
        Range("drop_ratio", 0.05, 0.6, 0.05),
        Choice("schedule", _SCHEDULES),
        Choice("pattern", list(PATTERNS)),
        Choice("window_size", [3, 5]),
        Range("lr", base.lr / _SPREAD, base.lr * _SPREAD),
        Range("drop_path", 0.0, 0.3, 0.05),
        Range("rand_augment", 0.0, 10.0, 1.0),
    ]
    known = [field.name for field in options_of(type(base))]
    return [dimension for dimension in dimensions if dimension.option in known and dimension.option not in given]


def chosen_by(
    trial: Any, space: Sequence[Dimension], resolve: Callable[[Mapping[str, Any]], RunConfig]
) -> dict[str, Any]:
    """Return the options that a trial of Optuna suggests: those alone that act beside the others.

    Args:
        trial: what suggests values.
        space: what is varied.
        resolve: makes the config of a run of what was chosen so far.
    """
    chosen: dict[str, Any] = {}
    for dimension in space:
        if idle_because(resolve(chosen), dimension.option) is None:
            chosen[dimension.option] = dimension.chosen_by(trial)
    return chosen
