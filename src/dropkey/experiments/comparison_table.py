"""What a comparison says in numbers: a row per arm."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dropkey.experiments.comparison import Result
from dropkey.experiments.statistics import MANY_SEEDS, Difference, holm, mean_and_sd, mean_interval, paired_difference
from dropkey.runs.measure import Measure
from dropkey.text_table import text_table

__all__ = [
    "ArmRow",
    "arm_rows",
    "as_cells",
    "as_data",
    "as_text",
    "difference_text",
    "p_text",
    "plus_minus",
]


@dataclass(frozen=True)
class ArmRow:
    """An arm over its seeds; measures are those of the last epoch.

    Args:
        label: of the arm.
        values: the headline of each run, by seed.
        interval: Student's 95% interval of its mean.
        means: of each measure over the seeds, by name.
        sds: standard deviation of each over the seeds.
        best: mean over the seeds of each run's best headline, chosen on the validation data.
        gap: mean generalization gap of the headline.
        gap_sd: its standard deviation.
        seconds: mean time of training.
        differences: of the headline from the first arm, by seed; empty for the first.
        difference: their mean, interval and test; None for the first arm, and where no seed is shared.
        p_holm: its p-value, corrected for the number of arms that are compared with the first; NaN without a test.
    """

    label: str
    values: Mapping[int, float]
    interval: tuple[float, float]
    means: Mapping[str, float]
    sds: Mapping[str, float]
    best: float
    gap: float
    gap_sd: float
    seconds: float
    differences: Mapping[int, float]
    difference: Difference | None
    p_holm: float

    @property
    def seeds(self) -> int:
        """Number of runs."""
        return len(self.values)


def arm_rows(results: Sequence[Result], measures: Sequence[Measure]) -> list[ArmRow]:
    """Return a row per arm, in the order in which they first occur; the first is what the others are compared with."""
    arms: dict[str, list[Result]] = {}
    for result in results:
        arms.setdefault(result.label, []).append(result)
    headline = measures[0]
    values = {label: _values(runs, f"final_val_{headline.name}") for label, runs in arms.items()}
    first = next(iter(arms))
    differences = {label: _difference(values[label], values[first]) for label in arms if label != first}
    corrected = holm([math.nan if found is None else found.p_value for found in differences.values()])
    p_values = dict(zip(differences, corrected, strict=True))
    rows = []
    for label, runs in arms.items():
        spread = {m.name: _mean_and_sd(runs, f"final_val_{m.name}") for m in measures}
        gap, gap_sd = _mean_and_sd(runs, "generalization_gap")
        rows.append(
            ArmRow(
                label=label,
                values=values[label],
                interval=mean_interval([*values[label].values()]),
                means={name: mean for name, (mean, _) in spread.items()},
                sds={name: sd for name, (_, sd) in spread.items()},
                best=_mean_and_sd(runs, f"best_val_{headline.name}")[0],
                gap=gap,
                gap_sd=gap_sd,
                seconds=_mean_and_sd(runs, "train_seconds")[0],
                differences={} if label == first else _by_seed(values[label], values[first]),
                difference=differences.get(label),
                p_holm=p_values.get(label, math.nan),
            )
        )
    return rows


def as_cells(rows: Sequence[ArmRow], measures: Sequence[Measure]) -> list[list[str]]:
    """Return the table as it is read: the header, then a row per arm."""
    headline, *others = measures
    tests = [f"against {rows[0].label}", "p (Holm)" if len(rows) > 2 else "p", "seeds needed"]
    compared = slice(None) if len(rows) > 1 else slice(0)
    header = ["arm", "seeds", f"val {headline.words}", *tests[compared], f"best {headline.words}"]
    body = [
        [
            row.label,
            str(row.seeds),
            plus_minus(headline, row.means[headline.name], row.sds[headline.name]),
            *[difference_text(headline, row.difference), p_text(row.p_holm), _seeds_text(row.difference)][compared],
            plus_minus(headline, row.best, math.nan),
            *(plus_minus(measure, row.means[measure.name], math.nan) for measure in others),
            plus_minus(headline, row.gap, row.gap_sd),
            f"{row.seconds:.1f}",
        ]
        for row in rows
    ]
    return [[*header, *(f"val {measure.words}" for measure in others), "gap", "seconds"], *body]


def as_text(rows: Sequence[ArmRow], measures: Sequence[Measure]) -> str:
    """Return the table that ``dropkey compare`` prints."""
    return text_table(as_cells(rows, measures))


def as_data(rows: Sequence[ArmRow], measures: Sequence[Measure]) -> list[dict[str, Any]]:
    """Return plain data, with None where there is no number: each measure's mean and ``_sd`` under its name."""
    return [_finite(_flat(row, measures)) for row in rows]


def _flat(row: ArmRow, measures: Sequence[Measure]) -> dict[str, Any]:
    spread: dict[str, float] = {}
    for measure in measures:
        spread |= {measure.name: row.means[measure.name], f"{measure.name}_sd": row.sds[measure.name]}
    rest = {"gap": row.gap, "gap_sd": row.gap_sd, "seconds": row.seconds}
    difference = None if row.difference is None else {**asdict(row.difference), "p_holm": row.p_holm}
    headline = measures[0].name
    best = {f"best_{headline}": row.best, f"{headline}_low": row.interval[0], f"{headline}_high": row.interval[1]}
    values = {str(seed): value for seed, value in row.values.items()}
    return {
        "label": row.label,
        "seeds": row.seeds,
        **spread,
        **best,
        **rest,
        "difference": difference,
        "values": values,
    }


def plus_minus(measure: Measure, mean: float, sd: float) -> str:
    """Return ``mean ± sd``, the mean alone where one seed has no spread, or ``-`` where nothing was measured."""
    if math.isnan(mean):
        return "-"
    return measure.text(mean) if math.isnan(sd) else f"{measure.number(mean)} ± {measure.text(sd)}"


def difference_text(measure: Measure, difference: Difference | None) -> str:
    """Return ``+0.0120 [-0.0030, +0.0270]``, the mean and its 95% interval."""
    if difference is None:
        return "-"
    if math.isnan(difference.low):
        return measure.text(difference.mean, "+")
    low, high = (measure.number(value, "+") for value in (difference.low, difference.high))
    return f"{measure.text(difference.mean, '+')} [{low}, {high}]"


def p_text(p_value: float) -> str:
    """Return a p-value as it is read, or ``-`` where there is none."""
    if math.isnan(p_value):
        return "-"
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _seeds_text(difference: Difference | None) -> str:
    """Return how many seeds would have been needed, or ``-`` where nothing says so."""
    if difference is None or math.isnan(difference.seeds_needed):
        return "-"
    return f"> {MANY_SEEDS:,}" if math.isinf(difference.seeds_needed) else f"{difference.seeds_needed:,.0f}"


def _values(runs: Sequence[Result], name: str) -> dict[int, float]:
    """Return a number of each run by seed; runs of which it was not measured are left out."""
    return {run.seed: float(run.summary[name]) for run in runs if run.summary.get(name) is not None}


def _mean_and_sd(runs: Sequence[Result], name: str) -> tuple[float, float]:
    values = [*_values(runs, name).values()]
    return mean_and_sd(values) if values else (math.nan, math.nan)


def _by_seed(values: Mapping[int, float], others: Mapping[int, float]) -> dict[int, float]:
    return {seed: value - others[seed] for seed, value in values.items() if seed in others}


def _difference(values: Mapping[int, float], others: Mapping[int, float]) -> Difference | None:
    seeds = [seed for seed in values if seed in others]
    return paired_difference([values[seed] for seed in seeds], [others[seed] for seed in seeds]) if seeds else None


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
