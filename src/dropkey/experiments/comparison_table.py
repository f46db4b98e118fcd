"""What a comparison says in numbers: a row an arm."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dropkey.adapters.table import text_table
from dropkey.experiments.comparison import Result
from dropkey.experiments.statistics import Difference, mean_and_sd, paired_difference

__all__ = ["ArmRow", "arm_rows", "as_text"]


@dataclass(frozen=True)
class ArmRow:
    """An arm over its seeds; accuracies are those of the last epoch, in [0, 1]."""

    label: str
    seeds: int
    accuracy: float
    accuracy_sd: float
    best_accuracy: float  # mean over seeds of each run's best epoch: chosen on the validation images
    loss: float
    gap: float
    gap_sd: float
    seconds: float
    difference: Difference | None  # of accuracy, paired by seed, from the first arm; None for the first


def arm_rows(results: Sequence[Result]) -> list[ArmRow]:
    """Return a row an arm, in the order in which they first occur; the first is what the others are compared with."""
    labels = list(dict.fromkeys(result.label for result in results))
    first = _values(results, labels[0], "final_val_accuracy")
    rows = []
    for label in labels:
        accuracies = _values(results, label, "final_val_accuracy")
        accuracy, sd = mean_and_sd(accuracies)
        gap, gap_sd = mean_and_sd(_values(results, label, "generalization_gap"))
        best, loss, seconds = (
            mean_and_sd(_values(results, label, name))[0]
            for name in ("best_val_accuracy", "final_val_loss", "train_seconds")
        )
        difference = None if label == labels[0] else paired_difference(accuracies, first)
        rows.append(ArmRow(label, len(accuracies), accuracy, sd, best, loss, gap, gap_sd, seconds, difference))
    return rows


def as_text(rows: Sequence[ArmRow]) -> str:
    """Return the table that ``dropkey compare`` prints."""
    header = ["arm", "seeds", "val accuracy", "best accuracy", "val loss", "gap", "seconds", f"against {rows[0].label}"]
    body = [
        [
            row.label,
            str(row.seeds),
            plus_minus(row.accuracy, row.accuracy_sd),
            f"{row.best_accuracy:.4f}",
            f"{row.loss:.4f}",
            plus_minus(row.gap, row.gap_sd),
            f"{row.seconds:.1f}",
            difference_text(row.difference),
        ]
        for row in rows
    ]
    return text_table([header, *body])


def as_data(rows: Sequence[ArmRow]) -> list[dict[str, Any]]:
    """Return plain data, with None where there is no number."""
    return [_finite(asdict(row)) for row in rows]


def plus_minus(mean: float, sd: float) -> str:
    """Return ``mean ± sd``, or the mean alone where one seed has no spread."""
    return f"{mean:.4f}" if math.isnan(sd) else f"{mean:.4f} ± {sd:.4f}"


def difference_text(difference: Difference | None) -> str:
    """Return ``+0.0120 [-0.0030, +0.0270]``, the mean and its 95% interval."""
    if difference is None:
        return "-"
    if math.isnan(difference.low):
        return f"{difference.mean:+.4f}"
    return f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"


def _values(results: Sequence[Result], label: str, name: str) -> list[float]:
    return [float(result.summary[name]) for result in results if result.label == label]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
