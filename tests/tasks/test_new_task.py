"""A task added by the steps of CONTRIBUTING (``tests/brightness``) works with every command, by one line elsewhere."""

import csv
import json
import re
from pathlib import Path

import brightness
import pytest

from dropkey.cli import main
from dropkey.runs.checkpoints import Checkpoints
from dropkey.tasks.registry import TASKS

FEW = ["--task", "brightness", "--batch-size", "20"]
TIMES = ("seconds", "train_seconds", "images_per_second")


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(TASKS, "brightness", "brightness.task")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "brightness", "brightness.task")
        assert main(["train", *FEW, "--finetune-epochs", "1", "--output", str(root)]) == 0
    return root


def result(root):
    rows = list(csv.DictReader((root / "metrics.csv").read_text().splitlines()))
    summary = json.loads((root / "summary.json").read_text())
    return [{key: value for key, value in row.items() if key not in TIMES} for row in [*rows, summary]]


def test_the_steps_of_contributing_are_one_folder_and_six_edits():
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    steps = re.search(r"\*\*A task\*\*.*?\n\n", text, flags=re.DOTALL)[0]
    told = re.findall(r"`(\w+)\.py`", steps.partition("registry")[0])
    written = {path.stem for path in Path(brightness.__file__).parent.glob("*.py")} - {"__init__"}
    assert set(told) >= written
    assert re.findall(r"(?<!\d)(\d)\. ", steps) == [str(number) for number in range(1, 7)]


def test_train(run):
    *rows, summary = result(run)
    errors = [float(row["val_error"]) for row in rows]
    assert len(rows) == 4
    assert summary["task"] == "brightness"
    assert (summary["measure"], summary["better"], summary["unit"]) == ("error", "lower", "levels")
    assert summary["best"] == min(errors) == errors[summary["best_epoch"]]
    assert summary["generalization_gap"] == pytest.approx(summary["final"] - summary["final_train"], abs=1e-5)
    assert errors[-1] < 60  # of a guess that knows nothing: about 64
    assert [row["drop_ratio"] for row in rows] == ["0.1", "0.1", "0.1", "0.0"]
    assert (run / "curves.png").exists()


def test_closing_lines_have_the_unit(run, capsys):
    assert main(["train", "--resume", "--output", str(run)]) == 0
    assert re.search(r"^validation error \d+\.\d\d levels \(best ", capsys.readouterr().out, re.MULTILINE)


class CrashError(Exception):
    pass


def test_resume(run, tmp_path, monkeypatch):
    def on_train_batch_end(self, trainer, pl_module, outputs, data, batch_idx):
        if (trainer.current_epoch, batch_idx) == (1, 0):
            self.save(trainer, (1, 1))
        if (trainer.current_epoch, batch_idx) == (1, 1):
            raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_train_batch_end", on_train_batch_end)
        with pytest.raises(CrashError):
            main(["train", *FEW, "--finetune-epochs", "1", "--output", str(tmp_path / "run")])
    assert main(["train", "--resume", "--output", str(tmp_path / "run")]) == 0
    assert result(tmp_path / "run") == result(run)


def test_evaluate(run, tmp_path, capsys):
    assert main(["evaluate", str(run), "--save-predictions", str(tmp_path / "levels.txt")]) == 0
    measured = json.loads((run / "evaluation.json").read_text())
    assert measured["error"] == pytest.approx(result(run)[-1]["final_val_error"], rel=1e-4)
    assert len((tmp_path / "levels.txt").read_text().splitlines()) == 20
    assert "levels" in capsys.readouterr().out


def test_compare(tmp_path, capsys):
    command = ["compare", *FEW, "--epochs", "2", "--seeds", "2", "--arms", "none", "dropkey:huber-delta=0.5"]
    assert main([*command, "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "best error" in out
    assert "accuracy" not in out + (tmp_path / "report.html").read_text()
    none, dropkey = json.loads((tmp_path / "results.json").read_text())
    assert dropkey["difference"]["mean"] == pytest.approx(dropkey["error"] - none["error"])
    assert main([*command, "--output", str(tmp_path)]) == 0
    assert "4 of 4 runs are finished already" in capsys.readouterr().out


def test_verify(run, capsys):
    assert main(["verify", str(run)]) == 0
    out = capsys.readouterr().out
    assert (out.count("drops as it should"), out.count("untouched (ratio 0)")) == (3, 1)  # linear decay, as it trains


def test_its_options_are_its_own(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--task", "brightness", "--help"])
    out = capsys.readouterr().out
    assert "--huber-delta" in out
    assert "(default: 4)" in out
    assert "--mixup" not in out
    assert main(["train", "--huber-delta", "0.5"]) == 2
    assert "no option --huber-delta" in capsys.readouterr().err
