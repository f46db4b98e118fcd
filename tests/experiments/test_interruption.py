"""A comparison in several processes that is stopped: it saves, leaves no process behind, and goes on."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow

OPTIONS = ["--epochs", "3", "--warmup-epochs", "1", "--seeds", "1", "--jobs", "2", "--threads", "1"]
COMMAND = [sys.executable, "-m", "dropkey", "compare", *OPTIONS, "--arms"]
THREE = ["none", "dropkey", "dropout"]


@pytest.fixture
def start():
    """Start a comparison in a session of its own; whatever is left of it at the end is killed."""
    started = []

    def start(root, arms):
        process = subprocess.Popen(
            [*COMMAND, *arms, "--output", str(root)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in what runs in the background
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_until(condition, process, seconds=600):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


def wait_for_end_of_group(leader, seconds=10):
    deadline = time.monotonic() + seconds
    while True:
        try:
            os.killpg(leader, 0)
        except ProcessLookupError:
            return
        assert time.monotonic() < deadline, "processes are left behind"
        time.sleep(0.05)


def ctrl_c(process):
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does


def sigterm(process):
    process.send_signal(signal.SIGTERM)  # as kill does


def sigterm_to_all(process):
    os.killpg(process.pid, signal.SIGTERM)  # as a job queue does


def stopped(process, root, stop, when):
    """Stop a comparison once something is so, and return the checkpoints of the runs that had not ended."""
    wait_until(when, process)
    before = time.time()
    stop(process)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert err.splitlines() == ["dropkey: interrupted; the same command resumes where this stopped"]
    wait_for_end_of_group(process.pid)
    halves = [path for path in root.glob("*/*/checkpoints/last.ckpt") if not ended(path.parent.parent)]
    assert all(path.stat().st_mtime >= before for path in halves)  # saved when it was asked to stop
    return halves


def ended(run):
    return (run / "summary.json").exists()


def finished(process, root):
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    assert out.count("against none") == 1  # the table
    return [(row["label"], row["accuracy"], row["loss"]) for row in json.loads((root / "results.json").read_text())]


@pytest.mark.parametrize("stop", [ctrl_c, sigterm, sigterm_to_all])
def test_stopped_while_two_runs_train(stop, start, tmp_path):
    files = [tmp_path / "stopped" / arm / "seed-0" / "checkpoints" / "last.ckpt" for arm in THREE[:2]]
    process = start(tmp_path / "stopped", THREE)
    assert stopped(process, tmp_path / "stopped", stop, lambda: all(file.exists() for file in files))
    results = finished(start(tmp_path / "stopped", THREE), tmp_path / "stopped")
    assert results == finished(start(tmp_path / "alone", THREE), tmp_path / "alone")


@pytest.mark.parametrize("stop", [ctrl_c, sigterm])
def test_stopped_while_one_process_has_nothing_to_do(stop, start, tmp_path):
    process = start(tmp_path, ["none:epochs=1", "dropkey:epochs=200"])
    short, long = (tmp_path / arm / "seed-0" for arm in ("none-epochs=1", "dropkey-epochs=200"))
    assert stopped(process, tmp_path, stop, lambda: ended(short) and (long / "checkpoints" / "last.ckpt").exists())


@pytest.mark.parametrize("stop", [ctrl_c, sigterm])
def test_stopped_before_anything_trains(stop, start, tmp_path):
    assert stopped(start(tmp_path, THREE), tmp_path, stop, (tmp_path / "comparison.yaml").exists) == []
