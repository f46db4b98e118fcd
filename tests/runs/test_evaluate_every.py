"""Evaluating now and then alone changes what is measured when, and nothing of what is trained."""

import csv
import json

import pytest

from dropkey.cli import main
from dropkey.runs.checkpoints import Checkpoints

pytestmark = pytest.mark.usefixtures("few_digits")

COMMAND = ["train", "--epochs", "4", "--batch-size", "40", "--drop-ratio", "0.3"]
TIMES = ("seconds", "train_seconds", "images_per_second")


def rows_and_summary(root):
    rows = list(csv.DictReader((root / "metrics.csv").read_text().splitlines()))
    summary = json.loads((root / "summary.json").read_text())
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows], summary


class CrashError(Exception):
    pass


def test_rows_of_evaluated_epochs_are_those_of_a_run_that_evaluates_all(tmp_path, monkeypatch, capsys):
    every, second, resumed = tmp_path / "every", tmp_path / "second", tmp_path / "resumed"
    assert main([*COMMAND, "--output", str(every)]) == 0
    assert main([*COMMAND, "--evaluate-every", "2", "--output", str(second)]) == 0
    all_rows, _ = rows_and_summary(every)
    rows, summary = rows_and_summary(second)
    assert [row["epoch"] for row in rows] == ["1", "3"]
    assert rows == [all_rows[1], all_rows[3]]
    assert summary["epochs"] == 4
    best = max(rows, key=lambda row: float(row["val_accuracy"]))
    assert summary["best_epoch"] == int(best["epoch"])
    assert (second / "checkpoints" / "best.ckpt").exists()

    def crash(self, trainer, pl_module, outputs, data, batch_idx):
        if (trainer.current_epoch, batch_idx) == (3, 1):
            raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_train_batch_end", crash)
        with pytest.raises(CrashError):
            main([*COMMAND, "--evaluate-every", "2", "--output", str(resumed)])
    assert main(["train", "--resume", "--output", str(resumed)]) == 0
    again, summary_again = rows_and_summary(resumed)
    assert again == rows
    assert {k: v for k, v in summary_again.items() if k not in TIMES} == {
        k: v for k, v in summary.items() if k not in TIMES
    }


def test_the_last_epoch_is_always_evaluated(capsys):
    assert main([*COMMAND, "--evaluate-every", "3"]) == 2
    assert "--epochs (4) must be a multiple of --evaluate-every (3)" in capsys.readouterr().err
