"""``dropkey train`` from the outside: what a run leaves, what it says, and that it can be repeated and resumed."""

import csv
import json
import signal
import subprocess
import sys

import pytest
import timm
import yaml

from dropkey.cli import main

pytestmark = pytest.mark.usefixtures("few_digits")

FAST = ["--epochs", "2", "--warmup-epochs", "1", "--batch-size", "32", "--lr", "1e-3"]
TIMES = ("seconds", "train_seconds", "images_per_second")


def read_rows(root):
    return list(csv.DictReader((root / "metrics.csv").read_text().splitlines()))


def without_times(mapping):
    return {key: value for key, value in mapping.items() if key not in TIMES}


@pytest.fixture(scope="module")
def run(tmp_path_factory, few_digits):
    root = tmp_path_factory.mktemp("runs") / "one"
    assert main(["train", *FAST, "--drop-ratio", "0.3", "--output", str(root)]) == 0
    return root


def test_run_folder_is_complete(run):
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    expected = {
        "config.yaml",
        "metrics.csv",
        "summary.json",
        "curves.png",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
    }
    assert expected <= names
    assert any("events.out.tfevents" in name for name in names)
    assert not any(name.endswith(".part") for name in names)


@pytest.mark.parametrize(
    "kwargs", [["depth=3, embed_dim=32,qk_norm=true,pos_embed=learn"], ["depth=3", "embed_dim=32", "qk_norm=True"]]
)
def test_model_kwargs_in_our_form_and_in_timms(kwargs, tmp_path):
    command = ["train", *FAST, "--epochs", "1", "--warmup-epochs", "0", "--drop-ratio", "0.2"]
    assert main([*command, "--model-kwargs", *kwargs, "--output", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["drop_ratios"] == pytest.approx([0.2, 0.1, 0.0])
    model = timm.create_model("vit_mini_patch2_8", depth=3, embed_dim=32, qk_norm=True, num_classes=10)
    assert summary["num_parameters"] == sum(parameter.numel() for parameter in model.parameters())


def test_summary_agrees_with_metrics(run):
    summary, rows = json.loads((run / "summary.json").read_text()), read_rows(run)
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert summary["final_val_accuracy"] == float(rows[-1]["val_accuracy"])
    assert summary["best_val_accuracy"] == max(float(row["val_accuracy"]) for row in rows)
    assert summary["final_train_accuracy"] == float(rows[-1]["clean_train_accuracy"])
    gap = summary["final_train_accuracy"] - summary["final_val_accuracy"]
    assert summary["generalization_gap"] == pytest.approx(gap, abs=1e-6)
    assert summary["drop_ratios"] == pytest.approx([0.3, 0.2, 0.1, 0.0])
    assert [site["drop_ratio"] for site in summary["sites"]] == summary["drop_ratios"]
    assert summary["epochs"] == 2
    assert summary["seed"] == 0
    assert summary["num_parameters"] > 0
    assert summary["images_per_second"] > 0


def test_config_holds_every_resolved_option(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"] == "vit_mini_patch2_8"
    assert config["img_size"] == 8
    assert config["workers"] == 0
    assert config["drop_ratio"] == 0.3


def test_same_command_gives_same_metrics(run, tmp_path):
    config = tmp_path / "config.yaml"
    values = yaml.safe_load((run / "config.yaml").read_text())
    config.write_text(yaml.safe_dump({**values, "output": str(tmp_path / "two")}))
    assert main(["train", "--config", str(config)]) == 0
    assert list(map(without_times, read_rows(tmp_path / "two"))) == list(map(without_times, read_rows(run)))


def test_table_comes_first_and_summary_last(tmp_path, capsys):
    command = ["train", *FAST, "--epochs", "1", "--warmup-epochs", "0", "--output", str(tmp_path / "run")]
    assert main(command) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].startswith("DropKey(drop_ratio=0.1, schedule='linear_decay'")
    assert "blocks.3.attn" in out
    assert lines[-2].startswith("validation accuracy ")
    assert err == ""


def test_workers_change_nothing(run, tmp_path):
    command = ["train", *FAST, "--drop-ratio", "0.3", "--workers", "2", "--output", str(tmp_path / "run")]
    assert main(command) == 0
    assert list(map(without_times, read_rows(tmp_path / "run"))) == list(map(without_times, read_rows(run)))


def test_finished_run_is_not_overwritten(run, capsys):
    before = (run / "summary.json").read_bytes()
    assert main(["train", *FAST, "--output", str(run)]) == 2
    assert "--resume" in capsys.readouterr().err
    assert (run / "summary.json").read_bytes() == before


def test_default_folder_is_fresh(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["train", *FAST, "--epochs", "1", "--warmup-epochs", "0", "--regularizer", "none"]) == 0
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    stem = "digits-vit_mini_patch2_8-none-seed0"
    assert names == [stem, f"{stem}-2"]


def test_resume_of_a_finished_run_trains_nothing(run, capsys):
    before = (run / "checkpoints/last.ckpt").read_bytes()
    assert main(["train", "--resume", "--output", str(run)]) == 0
    assert "validation accuracy" in capsys.readouterr().out
    assert (run / "checkpoints/last.ckpt").read_bytes() == before


@pytest.mark.slow
def test_no_options_at_all_learn_the_digits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert subprocess.run([sys.executable, "-m", "dropkey", "train"], check=False).returncode == 0
    summary = json.loads(next(tmp_path.glob("runs/*/summary.json")).read_text())
    assert summary["final_val_accuracy"] > 0.95


def test_seed_changes_the_run(run, tmp_path):
    assert main(["train", *FAST, "--drop-ratio", "0.3", "--seed", "1", "--output", str(tmp_path / "r")]) == 0
    assert read_rows(tmp_path / "r")[-1]["val_loss"] != read_rows(run)[-1]["val_loss"]


@pytest.mark.parametrize("regularizer", ["dropout", "dropout_renormalized"])
def test_baselines_train(regularizer, tmp_path):
    command = ["train", *FAST, "--epochs", "1", "--warmup-epochs", "0", "--regularizer", regularizer]
    assert main([*command, "--output", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["drop_ratios"][0] == 0.1


def test_ctrl_c_before_the_first_step(tmp_path, monkeypatch, capsys):
    def interrupt(self):
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr("dropkey.data.loaders.ImageData.train_dataloader", interrupt)
        assert main(["train", *FAST, "--output", str(tmp_path / "run")]) == 130
    assert "to resume: dropkey train --resume" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before
    assert main(["train", "--resume", "--output", str(tmp_path / "run")]) == 0
