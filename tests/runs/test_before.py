"""A comparison that an earlier version began (``before/``, written before there were tasks) goes on, and is evaluated.

One of its runs is finished, without its curves; the other was interrupted inside of its second epoch.
"""

import csv
import json
import shutil
from pathlib import Path

import pytest

from dropkey.cli import main

BEFORE = Path(__file__).parent / "before"
DROPKEY = "dropkey:drop-ratio=0.3:pattern=block:window-size=3:re-attention=1"
INTERRUPTED = Path(DROPKEY.replace(":", "-")) / "seed-0"
COMMAND = ["compare", "--model-kwargs", "depth=2,embed_dim=8,num_heads=2", "--epochs", "3", "--batch-size", "32"]
COMMAND += ["--lr", "2e-2", "--arms", "none", DROPKEY, "--seeds", "1"]


@pytest.fixture
def root(tmp_path):
    shutil.copytree(BEFORE, tmp_path / "before")
    return tmp_path / "before"


def rows(file):
    """The rows of a metrics.csv without the times, as numbers: another processor may round otherwise."""
    with file.open() as text:
        return [{k: float(v) for k, v in row.items() if k != "seconds"} for row in csv.DictReader(text)]


def assert_ends_like_one_left_alone(run):
    expected = rows(BEFORE / "dropkey-metrics-uninterrupted.csv")
    assert rows(run / "metrics.csv") == [pytest.approx(row, rel=2e-2) for row in expected]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["final_val_accuracy"] == rows(run / "metrics.csv")[-1]["val_accuracy"]
    assert summary["drop_ratios"] == pytest.approx([0.3, 0.0])


def test_an_interrupted_run_resumes(root):
    assert main(["train", "--resume", "--output", str(root / INTERRUPTED)]) == 0
    assert_ends_like_one_left_alone(root / INTERRUPTED)


def test_the_comparison_goes_on(root, capsys):
    assert main([*COMMAND, "--output", str(root)]) == 0
    assert "1 of 2 runs are finished already" in capsys.readouterr().out
    assert_ends_like_one_left_alone(root / INTERRUPTED)
    none, dropkey = json.loads((root / "results.json").read_text())
    assert none["accuracy"] == rows(root / "none" / "seed-0" / "metrics.csv")[-1]["val_accuracy"]
    assert dropkey["difference"]["mean"] == pytest.approx(dropkey["accuracy"] - none["accuracy"])


def test_a_changed_option_is_still_named(root, capsys):
    assert main([*COMMAND, "--weight-decay", "0.1", "--output", str(root)]) == 2
    assert "weight_decay 0.05, not 0.1" in capsys.readouterr().err


def test_a_finished_run_is_evaluated_and_said_again(root, capsys):
    run = root / "none" / "seed-0"
    assert main(["evaluate", str(run)]) == 0
    accuracy = json.loads((run / "summary.json").read_text())["final_val_accuracy"]
    assert json.loads((run / "evaluation.json").read_text())["accuracy"] == pytest.approx(accuracy, abs=0.01)
    assert main(["train", "--resume", "--output", str(run)]) == 0
    assert "validation accuracy 0.2028 (best 0.2028 in epoch 3)" in capsys.readouterr().out


def test_verify_builds_the_model_of_a_run(root, capsys):
    assert main(["verify", str(root / INTERRUPTED)]) == 0
    out = capsys.readouterr().out
    assert (out.count("drops as it should"), out.count("untouched (ratio 0)")) == (1, 1)
