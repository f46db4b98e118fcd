"""What a task measures, and how it is written."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Measure"]


@dataclass(frozen=True)
class Measure:
    """A number that says how good a model is; metrics.csv has it as ``val_NAME`` and ``clean_train_NAME``.

    Args:
        name: in columns and files: ``accuracy``.
        unit: "fraction" for shares in [0, 1], "mm", or "" for a number without one.
        better: whether higher or lower values are better.
        digits: places after the decimal point.
        counts_images: whether it is the share of images that are right, so that one of n images is worth 1/n.
    """

    name: str
    unit: str
    better: Literal["higher", "lower"]
    digits: int = 4
    counts_images: bool = False

    @property
    def val(self) -> str:
        """Its column for the validation data."""
        return f"val_{self.name}"

    @property
    def clean_train(self) -> str:
        """Its column for training data without augmentation and drop."""
        return f"clean_train_{self.name}"

    @property
    def words(self) -> str:
        """Its name in a sentence."""
        return self.name.replace("_", " ")

    def number(self, value: float, sign: str = "") -> str:
        """Return a value with the measure's digits."""
        return f"{value:{sign}z.{self.digits}f}"  # z: no minus before zero

    def text(self, value: float, sign: str = "") -> str:
        """Return a value as people read it, with its unit.

        Example:
            >>> Measure("MPJPE", "mm", "lower", digits=1).text(61.24)
            '61.2 mm'
        """
        number = self.number(value, sign)
        return number if self.unit in ("", "fraction") else f"{number} {self.unit}"

    def is_better(self, value: float, other: float) -> bool:
        """Whether a value is better than another one."""
        return value > other if self.better == "higher" else value < other

    def gap(self, row: Mapping[str, Any]) -> float:
        """Return by how much clean training data are measured better than validation data."""
        gap = float(row[self.clean_train]) - float(row[self.val])
        return gap if self.better == "higher" else -gap
