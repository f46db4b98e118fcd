"""What docs/results.md says of experiments is what their kept summaries say."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KEPT = sorted((ROOT / "benchmarks" / "results" / "experiments").glob("*.json"))


def rows():
    for path in KEPT:
        for table in json.loads(path.read_text())["tables"]:
            for row in table["rows"]:
                yield pytest.param(row, id=f"{path.stem}: {table['title']}: {row['label']}")


@pytest.mark.parametrize("row", list(rows()))
def test_a_row_is_as_it_was_kept(row):
    text = (ROOT / "docs" / "results.md").read_text()
    start = f"| {row['label']} | {row['seeds']} | {row['accuracy']:.4f} ± {row['accuracy_sd']:.4f} |"
    difference = row["difference"]
    if difference is not None:
        start += f" {difference['mean']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}] |"
    assert start in text


def test_there_are_summaries():
    assert len(KEPT) >= 2
