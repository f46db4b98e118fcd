"""Runs on a Ray cluster: a node that is killed, a comparison that is stopped, and clusters that are not there."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dropkey
from dropkey.cli import main
from dropkey.errors import ArgumentError, DivergedError, RunError
from dropkey.experiments import job as module
from dropkey.experiments.job import Job
from dropkey.tasks.registry import named_task

pytest.importorskip("ray", reason="needs the extra cluster")

from dropkey.experiments.ray_cluster import _run_on_node

OPTIONS = ["--train-per-class", "20", "--model-kwargs", "depth=2", "--threads", "1"]
COMMAND = [sys.executable, "-m", "dropkey", "compare", *OPTIONS]


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1 (Connection refused): ray start --head starts one"),
        ("somewhere", "--cluster takes auto, or HOST:PORT as ray start --head prints it, got 'somewhere'"),
    ],
)
def test_no_cluster_there(address, named, tmp_path, capsys):
    assert main(["compare", "--cluster", address, "--output", str(tmp_path / "c")]) == 2
    err = capsys.readouterr().err
    assert named in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--cluster", "auto", "--jobs", "2"], "--jobs acts only with --cluster left out, and --cluster is auto"),
        (["--cpus-per-run", "2"], "--cpus-per-run acts only with --cluster given: leave it out"),
        (["--gpus-per-run", "0.5"], "--gpus-per-run acts only with --cluster given: leave it out"),
    ],
)
def test_options_that_would_not_act(words, named, capsys):
    assert main(["compare", *words]) == 2
    assert named in capsys.readouterr().err


@pytest.fixture
def job(tmp_path):
    (tmp_path / "run").mkdir()
    return Job("none", named_task("classification").resolve({"regularizer": "none", "output": "run"}))


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch):
    """A worker changes its folder for good."""
    monkeypatch.chdir(Path.cwd())


def test_a_node_with_another_version(job, tmp_path):
    answer = _run_on_node(job, tmp_path, "0.0.1")
    assert isinstance(answer, RunError)
    assert f"has dropkey {dropkey.__version__}, and this command is of 0.0.1" in str(answer)


@pytest.mark.parametrize("folder", ["", "elsewhere"])
def test_a_node_that_does_not_see_the_folder(job, tmp_path, folder):
    (tmp_path / "run").rmdir()
    answer = _run_on_node(job, tmp_path / folder, dropkey.__version__)
    assert isinstance(answer, RunError)
    assert f"does not see {tmp_path / folder / 'run'}" in str(answer)


@pytest.mark.parametrize("error", [DivergedError("not finite"), ArgumentError("no such option")])
def test_what_a_user_can_mend_comes_back(job, tmp_path, monkeypatch, error):
    def fail(config, watch):
        raise error

    monkeypatch.setattr(module, "run_once", fail)
    answer = _run_on_node(job, tmp_path, dropkey.__version__)
    assert type(answer) is type(error)
    assert str(error) in str(answer)


@pytest.fixture
def cluster(monkeypatch):
    """Two nodes of one CPU each; the second may be removed."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_worker_niceness", "0")  # else it waits for whatever else runs here
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.second = cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def start(root, *words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*COMMAND, *words, "--output", str(root)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process, root):
    _, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    rows = json.loads((root / "results.json").read_text())
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def under_way(root):
    return [path.parent.parent for path in root.glob("*/*/checkpoints/last.ckpt") if not ended(path.parent.parent)]


def ended(run):
    return (run / "summary.json").exists()


def wait_until(condition, process, seconds=600):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of Ray
def test_a_node_is_killed_in_the_middle(cluster, tmp_path):
    words = ["--epochs", "10", "--seeds", "4"]
    process = start(tmp_path / "cluster", *words, "--cluster", cluster.address)
    wait_until(lambda: len(under_way(tmp_path / "cluster")) == 2, process)
    cluster.remove_node(cluster.second, allow_graceful=False)
    with_one_lost = finished(process, tmp_path / "cluster")
    starts = [len(list(path.glob("events.*"))) for path in (tmp_path / "cluster").glob("*/seed-*")]
    assert sorted(starts) == [*[1] * 11, 2]  # one run of twelve was lost, and went on
    assert with_one_lost == finished(start(tmp_path / "here", *words), tmp_path / "here")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_it_saves_and_resumes(cluster, tmp_path, number):
    words = ["--epochs", "40", "--seeds", "1", "--arms", "none", "dropkey", "--cluster", cluster.address]
    process = start(tmp_path, *words)
    wait_until(lambda: len(under_way(tmp_path)) == 2, process)
    before = time.time()
    process.send_signal(number)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 130
    assert err == "dropkey: interrupted; the same command resumes where this stopped\n"
    halves = under_way(tmp_path)
    assert halves
    assert all((run / "checkpoints" / "last.ckpt").stat().st_mtime >= before for run in halves)
    finished(start(tmp_path, *words), tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_run_for_which_no_node_has_room(cluster, tmp_path):
    process = start(tmp_path, "--cluster", cluster.address, "--cpus-per-run", "3")
    _, err = process.communicate(timeout=200)
    assert process.returncode == 2
    assert err == (
        "dropkey: no node of the cluster has 3 CPUs and 0 GPUs for a run: fewer --cpus-per-run or --gpus-per-run\n"
    )
