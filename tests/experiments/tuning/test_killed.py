"""A search that is killed at once: the same command goes on, and the trial under way from its checkpoint."""

import json
import os
import subprocess
import sys
import time

import pytest
import yaml

from dropkey.cli import main

pytest.importorskip("optuna", reason="needs the extra tune")
pytestmark = pytest.mark.slow

COMMAND = ["tune", "--trials", "4", "--epochs", "8", "--train-per-class", "30", "--model-kwargs", "depth=2"]
COMMAND += ["--check-seeds", "0", "--threads", "1"]


def rows(run):
    columns = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    return [row[: columns[0].index("lr")] for row in columns]


@pytest.mark.parametrize("words", [[], ["--jobs", "2"]])
def test_killed_in_a_trial(words, tmp_path):
    root = tmp_path / "search"
    command = [sys.executable, "-m", "dropkey", *COMMAND, *words, "--output", str(root)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    killed = root / "trials" / "0002"
    deadline = time.monotonic() + 600
    while not (killed / "checkpoints" / "last.ckpt").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    before, options = rows(killed), yaml.safe_load((killed / "config.yaml").read_text())
    assert subprocess.run(command, check=True, capture_output=True).returncode == 0
    assert rows(killed)[: len(before)] == before
    assert yaml.safe_load((killed / "config.yaml").read_text()) == options
    assert len(list(root.glob("trials/*"))) == 4
    if not (killed / "summary.json").exists():
        return  # it fell behind the others
    assert main(["train", "--config", str(killed / "config.yaml"), "--output", str(tmp_path / "alone")]) == 0
    assert rows(killed) == rows(tmp_path / "alone")
    assert json.loads((killed / "summary.json").read_text())["epochs"] == 8
