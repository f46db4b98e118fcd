"""What a search leaves in its folder: found.json, found.yaml, and the page of the check."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import yaml

from dropkey.experiments.comparison_files import write_comparison
from dropkey.experiments.comparison_table import as_data
from dropkey.experiments.tuning.check import Check, Checked, command
from dropkey.experiments.tuning.importance import importance_of, in_sentences
from dropkey.experiments.tuning.search import Search
from dropkey.experiments.tuning.trials import Trial
from dropkey.runs.options import acting
from dropkey.runs.run_folder import write_atomically

__all__ = ["write_found"]


def write_found(search: Search, trials: Sequence[Trial], check: Check, checked: Checked, validation: str) -> Path:
    """Write what was found, and return the path of the page.

    Args:
        search: that has ended.
        trials: what it has tried.
        check: of the best.
        checked: what it has shown.
        validation: which images trials and check are measured on, in words.
    """
    measures, importance = search.task.measures, importance_of(search)
    content = {
        "use": checked.arm.label,
        "none": check.options(check.arms[0]),
        "best": check.options(check.arms[1]),
        "difference": as_data(checked.rows, measures)[1]["difference"],
        "reading": checked.finding.words,
        "command": command(check.options(checked.arm)),
        "importance": importance,
        "trials": [dataclasses.asdict(trial) for trial in trials],
    }
    config = {name: value for name, value in acting(checked.arm.config).items() if name not in ("output", "seed")}
    write_atomically(search.root / "found.json", (json.dumps(content, indent=2) + "\n").encode())
    write_atomically(search.root / "found.yaml", yaml.safe_dump(config, sort_keys=False).encode())
    words = [
        f"The best with and without a regularizer of a search of {len(trials)} trials, on seeds that it did not use; "
        f"{validation}. {checked.finding.words.capitalize()}.",
        *in_sentences(importance),
    ]
    return write_comparison(check.root, checked.results, measures, lead=" ".join(words), command=content["command"])
