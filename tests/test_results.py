"""What docs/results.md says of experiments is what their kept summaries say."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KEPT = sorted((ROOT / "benchmarks" / "results" / "experiments").glob("*.json"))


HEADLINES = {"accuracy": 4, "mAP": 4, "MPJPE": 1}  # and their decimals


def rows():
    for path in KEPT:
        for table in json.loads(path.read_text())["tables"]:
            for row in table["rows"]:
                yield pytest.param(row, id=f"{path.stem}: {table['title']}: {row['label']}")


@pytest.mark.parametrize("row", list(rows()))
def test_a_row_is_as_it_was_kept(row):
    text = (ROOT / "docs" / "results.md").read_text()
    (name,) = HEADLINES.keys() & row.keys()
    digits = HEADLINES[name]
    start = f"| {row['label']} | {row['seeds']} | {row[name]:.{digits}f} ± {row[f'{name}_sd']:.{digits}f} |"
    difference = row["difference"]
    if difference is not None:
        low, high = (f"{difference[side]:+.{digits}f}" for side in ("low", "high"))
        start += f" {difference['mean']:+.{digits}f} [{low}, {high}] |"
    assert start in text


def test_there_are_summaries():
    assert len(KEPT) >= 2
