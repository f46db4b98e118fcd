"""``--task mesh`` from the outside, on bodies of a few points."""

import csv
import json
import sys

import numpy as np
import pytest
from oracles import humbi_layout, toy_bodies
from PIL import Image

from dropkey.cli import main
from dropkey.runs.checkpoints import Checkpoints
from dropkey.tasks.mesh import sources
from dropkey.tasks.mesh.task import TASK

pytest.importorskip("roma", reason="PA-MPJPE is measured in every epoch: pip install 'dropkey[mesh]'")

COMMAND = ["train", "--task", "mesh", "--img-size", "32", "--batch-size", "8", "--epochs", "2", "--drop-ratio", "0.3"]
TIMES = ("seconds", "train_seconds", "images_per_second")


@pytest.fixture(autouse=True, scope="module")
def _toy():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sources.SOURCES, "bodies", lambda data_dir, count, size: toy_bodies.source(size=size))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs") / "alone"
    assert main([*COMMAND, "--mask-ratio", "0.3", "--output", str(root)]) == 0
    return root


def result(root):
    rows = list(csv.DictReader((root / "metrics.csv").read_text().splitlines()))
    summary = json.loads((root / "summary.json").read_text())
    return [{key: value for key, value in row.items() if key not in TIMES} for row in [*rows, summary]]


def test_summary_says_what_was_measured(run):
    summary = json.loads((run / "summary.json").read_text())
    assert [summary[key] for key in ("task", "measure", "better", "unit")] == ["mesh", "MPJPE", "lower", "mm"]
    assert summary["best"] == summary["best_val_MPJPE"]
    assert len(summary["sites"]) == 6
    assert 50 < summary["final_val_MPJPE"] < 600
    assert {"final_val_PA-MPJPE", "final_val_MPVE", "final_train_MPJPE"} <= set(summary)


class CrashError(Exception):
    """Stands for a power cut."""


def test_crash_and_resume_equals_a_run_left_alone(run, tmp_path, monkeypatch):
    root = tmp_path / "run"

    def on_train_batch_end(self, trainer, pl_module, outputs, data, batch_idx):
        if (trainer.current_epoch, batch_idx) == (1, 0):
            self.save(trainer, (1, 1))
            raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_train_batch_end", on_train_batch_end)
        with pytest.raises(CrashError):
            main([*COMMAND, "--mask-ratio", "0.3", "--output", str(root)])
    assert main(["train", "--resume", "--output", str(root)]) == 0
    assert result(root) == result(run)


def test_evaluation_agrees_with_the_run_and_draws(run, tmp_path, capsys):
    file, picture = tmp_path / "bodies.npz", tmp_path / "bodies.png"
    command = ["evaluate", str(run), "--save-predictions", str(file), "--pictures", str(picture)]
    assert main([*command, "--beside", str(run)]) == 0
    evaluation, summary = (json.loads((run / name).read_text()) for name in ("evaluation.json", "summary.json"))
    for name in ("MPJPE", "PA-MPJPE", "MPVE"):
        assert evaluation[name] == pytest.approx(summary[f"final_val_{name}"], rel=1e-4)
    assert np.mean(list(evaluation["MPJPE_by_joint"].values())) == pytest.approx(evaluation["MPJPE"])
    out = capsys.readouterr().out
    assert "mean training body" in out
    assert "joint4" in out
    saved = np.load(file)
    assert saved["vertices_mm"].shape == (6, 40, 3)
    assert np.linalg.norm(saved["joints_mm"] - saved["true_joints_mm"], axis=-1).mean() == pytest.approx(
        evaluation["MPJPE"], rel=1e-4
    )
    with Image.open(picture) as page:
        assert page.width == (2 + 3 * 2) * 240


def test_surfaces_as_obj(run, tmp_path):
    assert main(["evaluate", str(run), "--save-predictions", str(tmp_path / "b.obj")]) == 0
    files = sorted(tmp_path.glob("b-*.obj"))
    assert len(files) == 6
    lines = files[0].read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["v"] * 40 + ["f"] * 2
    assert lines[-1] == "f 3 4 5"


def test_arms_are_compared_by_millimeters(tmp_path, capsys):
    command = ["compare", "--task", "mesh", "--arms", "none", "dropkey", "--seeds", "1", "--img-size", "32"]
    assert main([*command, "--epochs", "1", "--batch-size", "8", "--output", str(tmp_path / "c")]) == 0
    out = capsys.readouterr().out
    assert "MPJPE" in out
    assert (tmp_path / "c" / "report.html").exists()


def test_humbi_is_trained_on(tmp_path, capsys):
    humbi_layout.write(tmp_path / "humbi", subjects=2)
    command = ["--data", "humbi", "--data-dir", str(tmp_path / "humbi"), "--output", str(tmp_path / "run")]
    assert main([*COMMAND[:-2], "--epochs", "1", *command]) == 0
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert "rotation: 30.0" in config


def test_plain_regression_is_trained_beside_it(tmp_path):
    words = ["train", "--task", "mesh", "--model", "regression_mini", "--img-size", "32", "--batch-size", "8"]
    assert main([*words, "--epochs", "1", "--output", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["sites"] == []
    assert "regularizer: none" in (tmp_path / "run" / "config.yaml").read_text()


@pytest.mark.parametrize(("given", "drop"), [({}, 100), ({"epochs": 60}, 30), ({"lr_drop_epoch": 7}, 7)])
def test_the_rate_of_the_published_models_falls_at_half(given, drop):
    config = TASK.resolve({"model": "metro_r50", "output": "x", **given})
    assert (config.lr_schedule, config.lr_drop_epoch) == ("step", drop)


BAD = {
    "masked regression": (
        ["--model", "regression_mini", "--mask-ratio", "0.1"],
        "--mask-ratio acts only with --model metro_mini, metro_r50 or metro_hrnet_w64",
    ),
    "unknown model": (["--model", "metro_mimi"], "no mesh model 'metro_mimi'; did you mean 'metro_mini'"),
    "unknown data": (["--data", "bodys"], "unknown data 'bodys'; did you mean 'bodies'?"),
    "small pictures": (["--img-size", "16"], "--img-size 16 is too small"),
    "no folder": (["--data", "humbi"], "--data humbi needs --data-dir"),
    "an empty folder": (["--data", "humbi", "--data-dir", "EMPTY"], "holds 0 subject_N/body folders"),
    "a folder for sampled bodies": (["--data-dir", "EMPTY"], "--data-dir acts only with --data humbi"),
    "bodies for humbi": (["--data", "humbi", "--data-dir", "EMPTY", "--bodies", "9"], "--bodies acts only with --data"),
    "masked whole": (["--mask-ratio", "1"], "--mask-ratio must be a number in [0, 1), got 1"),
    "no bodies": (["--bodies", "0"], "--bodies must be a whole number, 1 or more"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options_are_one_line(case, tmp_path, capsys):
    words, message = BAD[case]
    words = [str(tmp_path) if word == "EMPTY" else word for word in words]
    assert main(["train", "--task", "mesh", "--epochs", "1", "--output", str(tmp_path / "run"), *words]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert message in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--save-predictions", "b.txt"], "--save-predictions takes FILE.npz for arrays or FILE.obj"),
        (["--pictures", "b.jpg"], "--pictures takes FILE.png"),
        (["--beside", "other"], "name that file too"),
        (["--pictures", "b.png", "--beside", "nowhere"], "nowhere"),
    ],
)
def test_bad_options_of_evaluate_are_one_line(run, words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", str(run), *words]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert message in err


def test_a_missing_roma_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "roma", None)
    assert main([*COMMAND, "--output", str(tmp_path / "run")]) == 2
    assert "pip install 'dropkey[mesh]'" in capsys.readouterr().err
