"""Failures of libraries, as one line with a remedy."""

import subprocess
import sys
import threading

import pytest
import torch
from PIL import Image

from dropkey.cli import main
from dropkey.errors import RunError
from dropkey.runs.console import quiet_libraries
from dropkey.runs.failures import mendable_failures

# What was said, and what must be in our line.
SAID = {
    "unable to open shared memory object </torch_1> in read-write mode": "--workers 0",
    "[Errno 28] No space left on device: 'events.out.tfevents'": "--resume",
    "DataLoader worker (pid 3) is killed by signal: Killed.": "fewer --workers",
    "CUDA out of memory. Tried to allocate 2.00 GiB": "smaller --batch-size",
    "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory": "smaller --batch-size",
    "[pair.cc:561] Connection closed by peer [127.0.0.1]:28085. GLHF!": "another process of this run has ended",
    "[pair.cc:534] Read error [127.0.0.1]:53: Connection reset by peer": "another process of this run has ended",
}


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("kind", [RuntimeError, OSError])
def test_a_known_failure_says_what_to_do(said, kind):
    with pytest.raises(RunError, match=SAID[said]), mendable_failures():
        raise kind(said)


def test_memory_errors_of_any_kind():
    for error in (MemoryError(), torch.OutOfMemoryError("x")):
        with pytest.raises(RunError, match="out of memory"), mendable_failures():
            raise error


def test_what_is_not_known_passes():
    with pytest.raises(RuntimeError, match="a bug of ours"), mendable_failures():
        raise RuntimeError("a bug of ours")


def test_events_that_cannot_be_written_are_one_line(tmp_path, monkeypatch, capsys):
    """As on a full disk: TensorBoard writes in a thread of its own, which says so by itself."""

    def write(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", write)
    assert main(["train", "--epochs", "1", "--train-per-class", "4", "--output", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert err == "dropkey: no space is left: make room (df -h names the full disk), then --resume\n"


def test_other_threads_still_report(monkeypatch):
    reported = []
    monkeypatch.setattr(threading, "excepthook", reported.append)

    def fail():
        raise OSError("seen")

    with quiet_libraries():
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    assert [str(failure.exc_value) for failure in reported] == ["seen"]


@pytest.mark.slow
def test_a_broken_image_under_two_processes_is_named(tmp_path):
    for split in ("train", "val"):
        for name, color in (("cat", "red"), ("dog", "blue")):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(6):
                Image.new("RGB", (32, 32), color).save(tmp_path / split / name / f"{number}.png")
    (tmp_path / "train" / "cat" / "0.png").write_bytes(b"")
    words = ["train", "--data", "folder", "--data-dir", str(tmp_path), "--devices", "2", "--epochs", "1"]
    words += ["--batch-size", "4", "--workers", "0", "--threads", "1", "--output", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-m", "dropkey", *words], capture_output=True, text=True, timeout=240)
    assert done.returncode == 2
    assert "cat/0.png is not an image that can be read" in done.stderr
    assert "Traceback" not in done.stderr
