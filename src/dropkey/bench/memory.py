"""Peak memory of one way to attend, measured in a process of its own.

Run as ``python -m dropkey.bench.memory WAY B H N D DTYPE RATIO FORWARD_ONLY``: prints bytes above what the process held
once its inputs existed.
"""

import subprocess
import sys
import threading
from pathlib import Path

import torch

from dropkey.bench.ways import way

__all__ = ["peak_bytes"]


def peak_bytes(name: str, shape: tuple[int, ...], dtype: str, drop_ratio: float, forward_only: bool) -> int | None:
    """Return the peak memory of one call, in bytes, or None where it cannot be measured."""
    if not torch.cuda.is_available() and not Path("/proc/self/statm").exists():
        return None
    arguments = [name, *map(str, shape), dtype, str(drop_ratio), str(int(forward_only))]
    command = [sys.executable, "-m", "dropkey.bench.memory", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else None


def _measure(name: str, shape: tuple[int, ...], dtype: str, drop_ratio: float, forward_only: bool) -> int:
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def inputs(tokens: int) -> list[torch.Tensor]:
        sizes = (shape[0], shape[1], tokens, shape[3])
        return [torch.randn(sizes, dtype=getattr(torch, dtype), device=device).requires_grad_() for _ in range(3)]

    def run(tensors: list[torch.Tensor]) -> None:
        with torch.set_grad_enabled(not forward_only):
            out = attend(tensors[0], tensors[1], tensors[2], drop_ratio)
        if not forward_only:
            torch.autograd.grad(out.sum(), tensors)

    attend = way(name)
    run(inputs(64))  # libraries, kernels and thread pools are there before anything is measured
    tensors = inputs(shape[2])
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(tensors)
        return torch.cuda.max_memory_allocated() - before
    with _Peak() as peak:
        run(tensors)
    return peak.bytes


class _Peak:
    """Largest resident memory of this process above that at the start, sampled every millisecond."""

    def __enter__(self) -> "_Peak":
        self.before = self.highest = _resident()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._sample)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()
        self.bytes = self.highest - self.before

    def _sample(self) -> None:
        while not self.stop.wait(0.001):
            self.highest = max(self.highest, _resident())


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


if __name__ == "__main__":
    way_name, *sizes, dtype_name, ratio, is_forward = sys.argv[1:]
    print(_measure(way_name, tuple(map(int, sizes)), dtype_name, float(ratio), is_forward == "1"))
