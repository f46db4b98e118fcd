"""``--task`` chooses the options that there are, and an unknown one is named."""

import json

import pytest

from dropkey.cli import main
from dropkey.tasks.registry import TASKS


@pytest.mark.parametrize("command", [["train"], ["compare"], ["train", "--help"]])
def test_an_unknown_task_is_one_line(command, capsys):
    assert main([*command, "--task", "detecton"]) == 2
    err = capsys.readouterr().err
    known = ", ".join(TASKS)
    assert err.startswith("dropkey: no task 'detecton'; did you mean 'detection'")
    assert err.endswith(f"?; known: {known}\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["train", "compare"])
def test_help_of_a_task_lists_its_options(command, capsys):
    with pytest.raises(SystemExit) as done:
        main([command, "--task", "classification", "--help"])
    assert done.value.code == 0
    out = capsys.readouterr().out
    assert "--label-smoothing" in out
    assert "--task NAME" in out


def test_a_task_in_a_config_file(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("task: nothing\n")
    assert main(["train", "--config", str(tmp_path / "c.yaml")]) == 2
    assert "no task 'nothing'" in capsys.readouterr().err


@pytest.mark.usefixtures("few_digits")
def test_summary_says_what_was_measured(tmp_path):
    command = ["train", "--task", "classification", "--epochs", "1", "--regularizer", "none"]
    assert main([*command, "--output", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    headline = [summary[key] for key in ("task", "measure", "better", "unit")]
    assert headline == ["classification", "accuracy", "higher", "fraction"]
    assert summary["best"] == summary["best_val_accuracy"]
    assert summary["final"] == summary["final_val_accuracy"]
    assert summary["final_train"] == summary["final_train_accuracy"]
