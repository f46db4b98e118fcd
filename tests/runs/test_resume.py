"""A run that was stopped anywhere and resumed ends like one that was left alone."""

import csv
import json
import signal

import pytest
import yaml

from dropkey.cli import main
from dropkey.runs.checkpoints import Checkpoints

pytestmark = pytest.mark.usefixtures("few_digits")

EPOCHS = 3  # of three batches
COMMAND = ["train", "--epochs", str(EPOCHS), "--warmup-epochs", "1", "--batch-size", "40", "--drop-ratio", "0.3"]
COMMAND += ["--drop-path", "0.1", "--finetune-epochs", "1"]
TIMES = ("seconds", "train_seconds", "images_per_second")


def result(root):
    rows = list(csv.DictReader((root / "metrics.csv").read_text().splitlines()))
    summary = json.loads((root / "summary.json").read_text())
    return [{key: value for key, value in row.items() if key not in TIMES} for row in [*rows, summary]]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, few_digits):
    root = tmp_path_factory.mktemp("runs") / "alone"
    assert main([*COMMAND, "--output", str(root)]) == 0
    return root


class CrashError(Exception):
    """Stands for a power cut: nothing is saved after it."""


def crash_at(monkeypatch, epoch, batch, save_before):
    """Crash after a batch; save before it, as the clock might have it, or not."""

    def on_train_batch_end(self, trainer, pl_module, outputs, data, batch_idx):
        here = (trainer.current_epoch, batch_idx)
        if save_before and here == (epoch, batch - 1):
            self.save(trainer, (epoch, batch))
        if here == (epoch, batch):
            raise CrashError

    monkeypatch.setattr(Checkpoints, "on_train_batch_end", on_train_batch_end)


@pytest.mark.parametrize(
    ("epoch", "batch", "save_before"), [(0, 0, False), (0, 2, True), (1, 0, False), (1, 1, True), (2, 2, True)]
)
def test_crash_and_resume_equals_a_run_left_alone(alone, epoch, batch, save_before, tmp_path, monkeypatch):
    root = tmp_path / "run"
    with monkeypatch.context() as patch:
        crash_at(patch, epoch, batch, save_before)
        with pytest.raises(CrashError):
            main([*COMMAND, "--output", str(root)])
    assert main(["train", "--resume", "--output", str(root)]) == 0
    assert result(root) == result(alone)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves(alone, number, tmp_path, monkeypatch, capsys):
    root = tmp_path / "run"

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (1, 1):
            signal.raise_signal(number)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_train_batch_start", on_train_batch_start)
        assert main([*COMMAND, "--output", str(root)]) == 130
    assert signal.getsignal(number) == before
    err = capsys.readouterr().err
    assert err.splitlines() == [f"dropkey: interrupted; to resume: dropkey train --resume --output {root}"]
    assert not (root / "summary.json").exists()
    assert main(["train", "--resume", "--output", str(root)]) == 0
    assert result(root) == result(alone)


def test_resume_of_nothing_starts_from_the_beginning(alone, tmp_path, capsys):
    assert main([*COMMAND, "--resume", "--output", str(tmp_path / "run")]) == 0
    assert "starting from the beginning" in capsys.readouterr().out
    assert result(tmp_path / "run") == result(alone)


def test_fine_tuning_epochs_do_not_drop(alone):
    ratios = [row.get("drop_ratio") for row in result(alone)[:EPOCHS]]
    assert ratios == ["0.3", "0.3", "0.0"]


@pytest.mark.parametrize(
    ("option", "value"), [("--lr", "0.1"), ("--model", "vit_mini_patch4_32"), ("--epochs", "9"), ("--seed", "5")]
)
def test_changed_option_on_resume_is_named(alone, option, value, tmp_path, capsys):
    root = tmp_path / "run"
    (root / "checkpoints").mkdir(parents=True)
    (root / "config.yaml").write_text((alone / "config.yaml").read_text())
    assert main(["train", "--resume", "--output", str(root), option, value]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"dropkey: {option} {value}")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"nonsense" + b[8:]])
def test_damaged_checkpoint_is_named(alone, damage, tmp_path, capsys):
    root = tmp_path / "run"
    (root / "checkpoints").mkdir(parents=True)
    (root / "config.yaml").write_text((alone / "config.yaml").read_text())
    (root / "checkpoints/last.ckpt").write_bytes(damage((alone / "checkpoints/last.ckpt").read_bytes()))
    assert main(["train", "--resume", "--output", str(root)]) == 2
    err = capsys.readouterr().err
    assert "last.ckpt" in err
    assert len(err.splitlines()) == 1


def test_a_resumed_run_needs_its_weights_file_no_longer(alone, tmp_path, monkeypatch):
    weights = tmp_path / "w.ckpt"
    weights.write_bytes((alone / "checkpoints" / "last.ckpt").read_bytes())
    command = [*COMMAND, "--weights", str(weights), "--output", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        crash_at(patch, 1, 1, True)
        with pytest.raises(CrashError):
            main(command)
    weights.unlink()
    assert main(["train", "--resume", "--output", str(tmp_path / "run")]) == 0


def test_config_survives_resume(alone):
    assert yaml.safe_load((alone / "config.yaml").read_text())["finetune_epochs"] == 1
