"""What a comparison says in numbers: a row per arm."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dropkey.adapters.table import text_table
from dropkey.experiments.comparison import Result
from dropkey.experiments.statistics import Difference, mean_and_sd, paired_difference
from dropkey.runs.measure import Measure

__all__ = ["ArmRow", "arm_rows", "as_data", "as_text", "difference_text", "plus_minus"]


@dataclass(frozen=True)
class ArmRow:
    """An arm over its seeds; measures are those of the last epoch.

    Args:
        label: of the arm.
        seeds: number of its runs.
        means: of each measure over the seeds, by name.
        sds: standard deviation of each over the seeds.
        best: mean over the seeds of each run's best headline, chosen on the validation data.
        gap: mean generalization gap of the headline.
        gap_sd: its standard deviation.
        seconds: mean time of training.
        difference: of the headline, paired by seed, from the first arm; None for the first.
    """

    label: str
    seeds: int
    means: Mapping[str, float]
    sds: Mapping[str, float]
    best: float
    gap: float
    gap_sd: float
    seconds: float
    difference: Difference | None


def arm_rows(results: Sequence[Result], measures: Sequence[Measure]) -> list[ArmRow]:
    """Return a row per arm, in the order in which they first occur; the first is what the others are compared with."""
    labels = list(dict.fromkeys(result.label for result in results))
    headline = measures[0].name
    first = _values(results, labels[0], f"final_val_{headline}")
    rows = []
    for label in labels:
        spread = {m.name: mean_and_sd(_values(results, label, f"final_val_{m.name}")) for m in measures}
        gap, gap_sd = mean_and_sd(_values(results, label, "generalization_gap"))
        best, seconds = (
            mean_and_sd(_values(results, label, name))[0] for name in (f"best_val_{headline}", "train_seconds")
        )
        finals = _values(results, label, f"final_val_{headline}")
        difference = None if label == labels[0] else paired_difference(finals, first)
        means, sds = ({name: pair[place] for name, pair in spread.items()} for place in (0, 1))
        rows.append(ArmRow(label, len(finals), means, sds, best, gap, gap_sd, seconds, difference))
    return rows


def as_text(rows: Sequence[ArmRow], measures: Sequence[Measure]) -> str:
    """Return the table that ``dropkey compare`` prints."""
    headline, *others = measures
    header = ["arm", "seeds", f"val {headline.words}", f"best {headline.words}", *(f"val {m.words}" for m in others)]
    body = [
        [
            row.label,
            str(row.seeds),
            plus_minus(headline, row.means[headline.name], row.sds[headline.name]),
            headline.text(row.best),
            *(m.text(row.means[m.name]) for m in others),
            plus_minus(headline, row.gap, row.gap_sd),
            f"{row.seconds:.1f}",
            difference_text(headline, row.difference),
        ]
        for row in rows
    ]
    return text_table([[*header, "gap", "seconds", f"against {rows[0].label}"], *body])


def as_data(rows: Sequence[ArmRow], measures: Sequence[Measure]) -> list[dict[str, Any]]:
    """Return plain data, with None where there is no number: each measure's mean and ``_sd`` under its name."""
    return [_finite(_flat(row, measures)) for row in rows]


def _flat(row: ArmRow, measures: Sequence[Measure]) -> dict[str, Any]:
    spread: dict[str, float] = {}
    for measure in measures:
        spread |= {measure.name: row.means[measure.name], f"{measure.name}_sd": row.sds[measure.name]}
    rest = {"gap": row.gap, "gap_sd": row.gap_sd, "seconds": row.seconds}
    difference = None if row.difference is None else asdict(row.difference)
    best = {f"best_{measures[0].name}": row.best}
    return {"label": row.label, "seeds": row.seeds, **spread, **best, **rest, "difference": difference}


def plus_minus(measure: Measure, mean: float, sd: float) -> str:
    """Return ``mean ± sd``, or the mean alone where one seed has no spread."""
    return measure.text(mean) if math.isnan(sd) else f"{measure.number(mean)} ± {measure.text(sd)}"


def difference_text(measure: Measure, difference: Difference | None) -> str:
    """Return ``+0.0120 [-0.0030, +0.0270]``, the mean and its 95% interval."""
    if difference is None:
        return "-"
    if math.isnan(difference.low):
        return measure.text(difference.mean, "+")
    low, high = (measure.number(value, "+") for value in (difference.low, difference.high))
    return f"{measure.text(difference.mean, '+')} [{low}, {high}]"


def _values(results: Sequence[Result], label: str, name: str) -> list[float]:
    return [float(result.summary[name]) for result in results if result.label == label]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
