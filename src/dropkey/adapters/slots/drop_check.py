"""What is seen at a site that drops, and the parts of the proof that DropKey and dropout of weights share."""

import math
from dataclasses import dataclass
from typing import ClassVar

from dropkey.errors import SiteError

__all__ = ["DropCheck", "check_share"]


@dataclass(frozen=True)
class DropCheck:
    """What was seen at one site."""

    name: str
    drop_ratio: float
    dropped_share: float
    max_error: float  # largest absolute difference from the reference; NaN where nothing can be compared
    num_calls: int

    header: ClassVar[tuple[str, ...]] = ("drop ratio", "dropped", "calls", "largest error", "verdict")
    conclusion: ClassVar[str] = "In evaluation mode the model is untouched, bit for bit."

    def cells(self) -> list[str]:
        """Return the row of the table under ``header``."""
        error = "-" if math.isnan(self.max_error) else f"{self.max_error:.2g}"
        verdict = "drops as it should" if self.drop_ratio > 0 else "untouched (ratio 0)"
        return [f"{self.drop_ratio:.4g}", f"{self.dropped_share:.4f}", str(self.num_calls), error, verdict]


def check_share(name: str, share: float, drop_ratio: float, bound: float) -> None:
    """Raise a SiteError if the share that was dropped is further from the drop ratio than chance allows."""
    if abs(share - drop_ratio) > bound:
        raise SiteError(f"{name} drops {share:.4f} of its keys, not {drop_ratio:.4f} +- {bound:.4f}")
