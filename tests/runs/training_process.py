"""``dropkey train`` in one process of its own, or in several that train together."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path


def start_training(root, *options, processes=1):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    alone = [sys.executable, "-m", "dropkey"]
    together = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    together += [f"--master-port={port}", "-m", "dropkey"]
    command = [*(alone if processes == 1 else together), "train", "--output", str(root), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(process):
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    return out


def kill(process):
    """Kill a process and all that it has started, at once: torchrun gives its processes sessions of their own."""
    for pid in [process.pid, *_descendants(process.pid)]:
        os.kill(pid, signal.SIGKILL)
    process.communicate()


def _descendants(pid):
    """Return the processes below one, those of Linux's list of children."""
    children = [int(word) for file in Path(f"/proc/{pid}/task").glob("*/children") for word in file.read_text().split()]
    return [*children, *(below for child in children for below in _descendants(child))]


def wait_for(path, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
