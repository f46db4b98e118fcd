"""Where a trained classifier looks, early and late in training."""

import csv
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from dropkey.diagnostics.diagnose import diagnose
from dropkey.errors import RunError
from dropkey.experiments.readings.spread import spread_images
from dropkey.runs.measure import Measure
from dropkey.runs.prepared import Prepared
from dropkey.runs.run_folder import RunFolder

__all__ = ["Attention", "Change"]


@dataclass(frozen=True)
class Attention:
    """Entropy, peak weight and distance of the maps, and similarity of heads: means over blocks, heads and images."""

    images: int = 64

    measures = (
        Measure("entropy", "nats", "higher", digits=3),
        Measure("peak", "", "lower", digits=3),
        Measure("distance", "patches", "higher", digits=2),
        Measure("head_similarity", "", "lower", digits=3),
    )

    @property
    def name(self) -> str:
        return f"attention-{self.images}-images"

    def read(self, trained: Prepared, folder: RunFolder) -> Mapping[str, float]:
        report = diagnose(trained.network, spread_images(trained, self.images))
        return {measure.name: float(report.measure(measure.name).nanmean()) for measure in self.measures}


@dataclass(frozen=True)
class Change:
    """How entropy and peak weight changed from the first look in training to the last; needs ``attention_every``."""

    name = "change-of-attention"
    measures = (
        Measure("entropy_change", "nats", "higher", digits=3),
        Measure("peak_change", "", "lower", digits=3),
    )

    def read(self, trained: Prepared, folder: RunFolder) -> Mapping[str, float]:
        path = folder.root / "attention" / "measures.csv"
        try:
            rows = list(csv.DictReader(path.read_text().splitlines()))
            first, last = (min(int(row["epoch"]) for row in rows), max(int(row["epoch"]) for row in rows))
            return {
                f"{name}_change": _mean(rows, last, name) - _mean(rows, first, name) for name in ("entropy", "peak")
            }
        except (OSError, KeyError, ValueError):
            raise RunError(f"cannot read {path}: the run must look at attention (attention_every)") from None


def _mean(rows: list[dict[str, str]], epoch: int, name: str) -> float:
    return statistics.fmean(float(row[name]) for row in rows if int(row["epoch"]) == epoch and row[name])
