"""A run that is killed at any moment, without warning, and resumed ends as one that was left alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kill_process.py")


@pytest.mark.parametrize("kills", [5, pytest.param(1000, marks=pytest.mark.slow)])
def test_killed_and_resumed(kills, tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), str(kills), "7"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] >= kills
    assert found["runs"] >= 1
    assert found["different"] == []
