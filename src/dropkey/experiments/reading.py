"""What is read off a trained run beside its summary: measured once, and kept in the run's folder."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from dropkey.errors import RunError
from dropkey.runs.measure import Measure
from dropkey.runs.prepared import Prepared
from dropkey.runs.run_folder import RunFolder, write_atomically
from dropkey.tasks.loading import load_run

__all__ = ["Reading", "readings_of"]


class Reading(Protocol):
    """A measurement of a trained model.

    Attributes:
        name: of the file that keeps it; two readings of one name give the same values of the same run.
        measures: what it gives, in the order of the columns; a measure of the task by that name is replaced.
    """

    @property
    def name(self) -> str: ...

    @property
    def measures(self) -> Sequence[Measure]: ...

    def read(self, trained: Prepared, folder: RunFolder) -> Mapping[str, float]:
        """Return a value for each of the measures, by name; NaN where there is none."""


def readings_of(folder: RunFolder, readings: Sequence[Reading]) -> dict[str, float]:
    """Return the values of all readings of a finished run; later ones replace earlier ones of the same measure."""
    values: dict[str, float] = {}
    trained: Prepared | None = None
    for reading in readings:
        path = folder.root / "readings" / f"{re.sub(r'[^a-z0-9.-]+', '-', reading.name.lower())}.json"
        if not path.exists():
            trained = trained or load_run(folder)
            found = {key: None if math.isnan(value) else value for key, value in reading.read(trained, folder).items()}
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, (json.dumps(found) + "\n").encode())
        try:
            saved: dict[str, Any] = json.loads(path.read_text())
            values |= {m.name: math.nan if saved[m.name] is None else float(saved[m.name]) for m in reading.measures}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise RunError(f"cannot read {path}: delete it, and it is measured again") from None
    return values
