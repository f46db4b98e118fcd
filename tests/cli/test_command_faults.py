"""What broke in ordinary use of the commands: data that changes, readers that leave, two at once, folders of others."""

import contextlib
import io
import json
import os
import shutil
import signal
import sys
import threading
import time

import pytest
import torch
from cli.test_errors import check_one_line, image_tree
from PIL import Image

from dropkey.cli import main
from dropkey.errors import RunError
from dropkey.runs import training
from dropkey.runs.run_folder import RunFolder, check_writable
from dropkey.runs.run_lock import locked
from dropkey.tasks.classification.module import Classification

QUICK = ["--model", "vit_mini_patch2_8", "--model-kwargs", "depth=1", "embed_dim=8", "num_heads=1", "--workers", "0"]
QUICK += ["--batch-size", "4", "--warmup-epochs", "0", "--data", "folder"]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image_tree(tmp_path / "images", per_class=4)
    return tmp_path


def train(*more, output="run", epochs=1):
    return main(["train", *QUICK, "--data-dir", "images", "--epochs", str(epochs), "--output", output, *more])


def stop_after_epoch(monkeypatch, epoch, stop):
    """Let a run stop where an epoch ends."""
    real = Classification.take_measures

    def take_measures(self):
        measures = real(self)
        if self.current_epoch == epoch:
            stop()
        return measures

    monkeypatch.setattr(Classification, "take_measures", take_measures)


@pytest.fixture
def half(root, monkeypatch):
    """A run of three epochs that was stopped after the first."""
    with monkeypatch.context() as patch:
        stop_after_epoch(patch, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert train(epochs=3) == 130
    assert not (root / "run" / "summary.json").exists()
    return root


# Data that changes.


def removed(root):
    (root / "images" / "train" / "cat" / "1.png").unlink()


def added(root):
    Image.new("RGB", (8, 8)).save(root / "images" / "val" / "dog" / "9.png")


def repainted(root):
    Image.new("RGB", (8, 8), (1, 2, 3)).save(root / "images" / "train" / "dog" / "0.png")


@pytest.mark.parametrize("change", [removed, added, repainted])
def test_a_run_is_not_continued_on_other_data(change, half, capsys):
    change(half)
    assert train("--resume", epochs=3) == 2
    check_one_line(capsys.readouterr().err, "was trained on other data than images holds now")


def test_a_run_is_continued_on_the_same_data_elsewhere(half):
    shutil.move(half / "images", half / "moved")
    assert main(["train", "--resume", "--output", "run", "--data-dir", "moved"]) == 0
    assert json.loads((half / "run" / "summary.json").read_text())["epochs"] == 3


def test_a_run_without_its_config_is_not_begun_anew(half, capsys):
    (half / "run" / "config.yaml").unlink()
    before = {path: path.read_bytes() for path in (half / "run").rglob("*") if path.is_file()}
    assert train("--resume", epochs=3) == 2
    check_one_line(capsys.readouterr().err, "but not its config.yaml: put that back")
    assert {path: path.read_bytes() for path in (half / "run").rglob("*") if path.is_file()} == before


def test_a_comparison_is_of_one_data_set(root, capsys):
    compare = ["compare", *QUICK, "--data-dir", "images", "--epochs", "1", "--seeds", "1", "--output", "c"]
    assert main([*compare, "--arms", "none"]) == 0
    added(root)
    assert main([*compare, "--arms", "none", "dropkey"]) == 2
    said = capsys.readouterr()
    check_one_line(said.err, "were trained on different data")
    assert "against" not in said.out.split("page:")[-1]


def test_a_run_goes_on_without_the_file_that_it_began_with(root, monkeypatch):
    assert train(output="first") == 0
    shutil.copy(root / "first" / "checkpoints" / "last.ckpt", root / "w.ckpt")
    with monkeypatch.context() as patch:
        stop_after_epoch(patch, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert train("--weights", "w.ckpt", epochs=3) == 130
    (root / "w.ckpt").unlink()
    assert main(["train", "--resume", "--output", "run"]) == 0


def test_mirroring_can_be_turned_off(root, capsys):
    assert train("--mirror", "false") == 0
    assert "mirroring" not in capsys.readouterr().out.replace("no mirroring", "")
    assert train(output="other") == 0
    assert ", mirroring" in capsys.readouterr().out


def test_mixup_acts_on_an_epoch_of_one_odd_batch(root, monkeypatch):
    (root / "images" / "train" / "cat" / "0.png").unlink()
    seen = []
    real = Classification.training_step

    def training_step(self, batch, batch_idx):
        mixup = self.mixup
        self.mixup = lambda images, labels: (seen.append(len(images)), mixup(images, labels))[1]
        try:
            return real(self, batch, batch_idx)
        finally:
            self.mixup = mixup

    monkeypatch.setattr(Classification, "training_step", training_step)
    assert train("--mixup", "0.5", "--batch-size", "64") == 0
    assert seen == [6]


# Two at once, and files of others.


def test_one_process_a_folder(root):
    with locked(root):
        thread_said = []

        def other():
            try:
                with locked(root, patience_s=0.2):
                    thread_said.append("in")
            except RunError as error:
                thread_said.append(str(error))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(10)
        assert "another process is at work" in thread_said[0]
    with locked(root, patience_s=0.2):
        pass
    assert sorted(path.name for path in root.iterdir()) == ["images"]


def test_a_fork_does_not_hold_the_folder_of_its_parent(root):
    reading, writing = os.pipe()
    with locked(root):
        child = os.fork()
        if not child:
            os.close(writing)
            os.read(reading, 1)  # lives until the parent says so
            os._exit(0)
    try:
        with locked(root, patience_s=0.2):
            pass
    finally:
        os.close(writing)
        os.waitpid(child, 0)


def test_a_second_run_in_a_folder(half, monkeypatch, capsys):
    monkeypatch.setattr("dropkey.runs.run_lock.locked.__wrapped__.__defaults__", (0.1,))
    before = (half / "run" / "checkpoints" / "last.ckpt").read_bytes()
    with locked(half / "run"):
        assert train("--resume", epochs=3) == 2
    check_one_line(capsys.readouterr().err, "another process is at work in run")
    assert (half / "run" / "checkpoints" / "last.ckpt").read_bytes() == before


@pytest.mark.parametrize("name", ["metrics.csv", "summary.json", "curves.png", "checkpoints/last.ckpt"])
def test_files_of_others_are_not_written_over(name, root, capsys):
    (root / "mine" / name).parent.mkdir(parents=True)
    (root / "mine" / name).write_text("precious")
    assert train(output="mine") == 2
    check_one_line(capsys.readouterr().err, f"mine/{name} is there already")
    assert (root / "mine" / name).read_text() == "precious"
    assert len(list((root / "mine").rglob("*"))) == name.count("/") + 1


# Whoever reads what a command says.


class Leaves(io.StringIO):
    """A pipe whose reader leaves after the first line."""

    encoding = "utf-8"

    def write(self, text):
        if "\n" in self.getvalue():
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)

    def fileno(self):
        raise OSError("no file")


def test_a_run_ends_though_its_reader_has_left(root, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Leaves())
    assert train() == 0
    assert (root / "run" / "summary.json").exists()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_name_can_be_said_in_any_encoding(encoding, root, monkeypatch):
    bytes_of_output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(bytes_of_output, encoding=encoding))
    for split in ("train", "val"):
        (root / "images" / split / "cat").rename(root / "images" / split / "猫\udce9")
    (root / "images" / "train" / "dog" / "naïve\n.heic").write_bytes(b"")
    assert train() == 0
    sys.stdout.flush()
    said = bytes_of_output.getvalue().decode(encoding)
    assert "left out: .heic files: 1 (images/train/dog/na" in said
    assert len(said.splitlines()) == len(said.split("\n")) - 1


# Signals and the environment.


def test_sigterm_before_training(root, monkeypatch, capsys):
    monkeypatch.setattr("dropkey.tasks.task.seed_all", lambda *place: os.kill(os.getpid(), signal.SIGTERM))
    handler = signal.getsignal(signal.SIGTERM)
    assert train() == 130
    check_one_line(capsys.readouterr().err, "interrupted")
    assert not (root / "run").exists()
    assert signal.getsignal(signal.SIGTERM) == handler


def test_sigterm_in_evaluate(root, monkeypatch, capsys):
    assert train() == 0
    monkeypatch.setattr(
        "dropkey.tasks.classification.evaluation.evaluate", lambda *args: os.kill(os.getpid(), signal.SIGTERM)
    )
    capsys.readouterr()
    assert main(["evaluate", "run"]) == 130
    check_one_line(capsys.readouterr().err, "interrupted")


@pytest.mark.parametrize("left", [{"RANK": "3"}, {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "2"}, {"RANK": "x"}])
def test_ranks_left_in_the_environment(left, root, monkeypatch):
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    assert train() == 0
    names = {path.name.partition(".")[0] for path in (root / "run").iterdir()}
    assert names == {"config", "metrics", "summary", "curves", "checkpoints", "events"}


# Results that would be lost.


@pytest.mark.parametrize("option", ["--output", "--save-predictions"])
def test_what_cannot_be_written_is_said_before_it_is_measured(option, root, monkeypatch, capsys):
    assert train() == 0
    monkeypatch.setattr("dropkey.tasks.classification.evaluation.evaluate", lambda *args: pytest.fail("measured"))
    assert main(["evaluate", "run", option, "nowhere/x"]) == 2
    check_one_line(capsys.readouterr().err, "cannot write nowhere/x: No such file or directory")


def test_monte_carlo_without_dropkey_is_said_before_anything_is_measured(root, monkeypatch, capsys):
    assert train("--regularizer", "none") == 0
    monkeypatch.setattr("dropkey.tasks.classification.evaluation.evaluate", lambda *args: pytest.fail("measured"))
    assert main(["evaluate", "run", "--monte-carlo", "4"]) == 2
    check_one_line(capsys.readouterr().err, "--monte-carlo averages over what a regularizer drops")


def test_read_only_file_systems(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(RunError, match="Read-only file system"):
        check_writable(tmp_path / "x.json")
    monkeypatch.setattr("pathlib.Path.open", refuse)
    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    with pytest.raises(RunError, match="Read-only file system"):
        RunFolder(tmp_path).write_summary({"a": 1})


# Comparisons.


def test_an_arm_that_diverges_is_named_and_the_others_go_on(root, capsys):
    compare = ["compare", *QUICK, "--data-dir", "images", "--epochs", "1", "--seeds", "2", "--output", "c"]
    assert main([*compare, "--arms", "dropkey:lr=1e30:clip-grad=0", "none", "dropkey"]) == 2
    said = capsys.readouterr()
    check_one_line(said.err, "the arm 'dropkey:lr=1e30:clip-grad=0' diverged: the loss is not finite")
    assert said.out.count("failed, the loss is not finite") == 2
    arms = {row.split()[0] for row in said.out.split("arm ", 1)[1].splitlines()[1:3]}
    assert arms == {"none", "dropkey"}
    assert (root / "c" / "report.html").exists()
    assert main([*compare, "--arms", "dropkey:lr=1e30:clip-grad=0"]) == 2


def test_another_error_names_the_arm(root, capsys):
    (root / "images" / "train" / "cat" / "0.png").write_bytes(b"no image")
    compare = ["compare", *QUICK, "--data-dir", "images", "--epochs", "1", "--seeds", "1", "--output", "c"]
    assert main([*compare, "--arms", "none", "dropkey"]) == 2
    check_one_line(capsys.readouterr().err, "none, seed 0: images/train/cat/0.png is not an image")


# The clock.


@pytest.mark.parametrize("acts", [["--regularizer", "dropkey"], ["--regularizer", "none", "--re-attention", "all"]])
def test_the_kernel_is_built_before_the_clock_starts(root, monkeypatch, acts):
    order = []
    monkeypatch.setattr(training, "is_available", lambda name: order.append(("built", name, time.monotonic())))
    real = training.pl.Trainer.fit

    def fit(self, *args, **kwargs):
        order.append(("fit", "", time.monotonic()))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(training.pl.Trainer, "fit", fit)
    assert train(*acts) == 0
    assert [step for step, _, _ in order] == (["fit"] if torch.cuda.is_available() else ["built", "fit"])


def test_speed_says_what_it_leaves_out(root, capsys):
    assert train() == 0
    assert "images/s, evaluation left out" in capsys.readouterr().out


def test_verify_of_a_run_proves_what_the_run_does(root, capsys):
    assert train("--drop-ratio", "0.25", "--schedule", "constant", "--pattern", "column") == 0
    capsys.readouterr()
    assert main(["verify", "run"]) == 0
    assert "DropKey(drop_ratio=0.25, schedule='constant', pattern=Column()" in capsys.readouterr().out
    with contextlib.suppress(SystemExit):
        assert main(["verify", "run", "--drop-ratio", "0.5"]) == 0
    assert "drop_ratio=0.5, schedule='constant', pattern=Column()" in capsys.readouterr().out
