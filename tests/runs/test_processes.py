"""Real processes: killed at random moments, stopped by signals, and two that train together."""

import csv
import json
import os
import random
import signal
import subprocess
import sys

import pytest
from runs.training_process import finish, kill, start_training, wait_for

pytestmark = pytest.mark.slow

TIMES = ("seconds", "train_seconds", "images_per_second")
OPTIONS = ["--epochs", "4", "--warmup-epochs", "1", "--drop-ratio", "0.3", "--save-seconds", "0.2", "--threads", "1"]


HALF = ["--batch-size", "32"]  # of each of two processes: together the same images a step as one process takes

# Two blocks with batch norm, so that there are statistics beside the shards.
SHARDED = ["--strategy", "fsdp", "--clip-grad", "0.5", "--accumulate", "2", "--re-attention", "2"]


def result(root):
    rows = list(csv.DictReader((root / "metrics.csv").read_text().splitlines()))
    summary = json.loads((root / "summary.json").read_text())
    return [{key: value for key, value in row.items() if key not in TIMES} for row in [*rows, summary]]


def start(root, *more, processes=1):
    return start_training(root, *OPTIONS, *more, processes=processes)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs") / "alone"
    finish(start(root))
    return root


def test_killed_at_random_moments(alone, tmp_path):
    root, rng = tmp_path / "run", random.Random(0)
    for _ in range(10):
        process = start(root, "--resume")
        wait_for(root / "config.yaml", process)
        try:
            process.communicate(timeout=rng.uniform(2, 12))
            break  # finished before it was killed
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    finish(start(root, "--resume"))
    assert result(root) == result(alone)


def test_stopped_by_sigterm(alone, tmp_path):
    root = tmp_path / "run"
    process = start(root)
    wait_for(root / "checkpoints" / "last.ckpt", process)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in out
    finish(start(root, "--resume"))
    assert result(root) == result(alone)


def test_stopped_by_ctrl_c_with_processes_that_read_images(alone, tmp_path):
    root = tmp_path / "run"
    process = start(root, "--workers", "2")
    wait_for(root / "checkpoints" / "last.ckpt", process)
    os.killpg(process.pid, signal.SIGINT)  # to the readers too, as a terminal does
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert "Traceback" not in out
    finish(start(root, "--resume"))
    assert result(root) == result(alone)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs") / "together"
    out = finish(start(root, *HALF, processes=2))
    assert out.count("blocks.0.attn") == 1  # one process speaks
    assert "Warning" not in out
    assert "deprecated" not in out
    return root


def test_two_processes_learn_as_one_does(together, alone):
    (*_, two), (*_, one) = result(together), result(alone)
    assert two["num_parameters"] == one["num_parameters"]
    assert abs(two["final_val_accuracy"] - one["final_val_accuracy"]) < 0.08


def test_two_processes_killed_and_resumed(together, tmp_path):
    root = tmp_path / "run"
    process = start(root, *HALF, processes=2)
    wait_for(root / "checkpoints" / "last.ckpt", process)
    kill(process)
    assert not (root / "summary.json").exists()
    finish(start(root, "--resume", processes=2))
    assert result(root) == result(together)


def test_two_processes_started_by_one_command(tmp_path):
    finish(start(tmp_path / "run", "--devices", "2", "--epochs", "1", "--warmup-epochs", "0"))
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs") / "sharded"
    out = finish(start(root, *HALF, *SHARDED, processes=2))
    assert out.count("blocks.0.attn") == 1
    assert "Warning" not in out
    assert "deprecated" not in out
    return root


def test_shards_learn_as_copies_do(sharded, tmp_path):
    finish(start(tmp_path / "run", *HALF, *SHARDED, "--strategy", "ddp", processes=2))
    (*shards, summary), (*copies, other) = result(sharded), result(tmp_path / "run")
    for name in ("train_loss", "val_loss"):
        assert [float(row[name]) for row in shards] == pytest.approx([float(row[name]) for row in copies], rel=1e-3)
    assert summary["num_parameters"] == other["num_parameters"]


def test_shards_killed_and_resumed_and_evaluated_in_one_process(sharded, tmp_path):
    root = tmp_path / "run"
    process = start(root, *HALF, *SHARDED, processes=2)
    wait_for(root / "checkpoints" / "last.ckpt", process)
    kill(process)
    assert not (root / "summary.json").exists()
    finish(start(root, "--resume", processes=2))
    assert result(root) == result(sharded)
    evaluate = [sys.executable, "-m", "dropkey", "evaluate", str(root)]
    done = subprocess.run(evaluate, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    evaluation, summary = json.loads((root / "evaluation.json").read_text()), result(root)[-1]
    for name in ("accuracy", "loss"):  # whichever process measured an image, it had the statistics of rank 0
        assert evaluation[name] == pytest.approx(summary[f"final_val_{name}"], rel=1e-5)


def test_compared_in_several_processes_or_in_one(tmp_path):
    command = ["compare", "--epochs", "1", "--warmup-epochs", "0", "--batch-size", "256", "--seeds", "1"]
    command += ["--arms", "none", "dropkey", "--threads", "1"]
    results = []
    for jobs in ("1", "2"):
        root = tmp_path / jobs
        program = [sys.executable, "-m", "dropkey", *command, "--jobs", jobs, "--output", str(root)]
        done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        results.append([(row["accuracy"], row["loss"]) for row in json.loads((root / "results.json").read_text())])
    assert results[0] == results[1]
