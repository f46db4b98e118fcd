"""Fair times: everything that is compared runs in turn, round after round, and medians are taken."""

import ctypes
import mmap
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

__all__ = ["Times", "interleaved"]


class Times(NamedTuple):
    """Times of one candidate, in milliseconds, and how it compares with the baseline round by round."""

    median_ms: float
    low_ms: float  # 10th percentile
    high_ms: float  # 90th percentile
    ratio: float  # median over the rounds of time / baseline's time in the same round


def interleaved(candidates: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 3) -> dict[str, Times]:
    """Time candidates in turn.

    Args:
        candidates: functions to call; the first is the baseline of the ratios.
        rounds: how often each is timed.
        warm_up: calls of each beforehand that do not count.

    Returns:
        Times by name.
    """
    _hold_memory()
    for _ in range(warm_up):
        for run in candidates.values():
            run()
    _touch_memory()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            seconds[name].append(_time(run))
    baseline = next(iter(seconds.values()))
    return {name: _summary(values, baseline) for name, values in seconds.items()}


def _hold_memory() -> None:
    """Ask the C library to keep freed memory: else a step waits for fresh pages or not by what ran before it."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mmap_max, trim_threshold = -4, -1  # as malloc.h names them
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, -1)  # never


def _touch_memory() -> None:
    """Leave the C library half as much touched memory again: what it cut into pieces would still cost fresh pages."""
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    size = int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE // 2
    block = library.malloc(ctypes.c_size_t(size))
    if block:
        ctypes.memset(block, 0, size)
        library.free(block)


def _time(run: Callable[[], object]) -> float:
    _wait()
    start = time.perf_counter()
    run()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _summary(values: list[float], baseline: list[float]) -> Times:
    ordered = sorted(values)
    low, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.1, 0.9))
    ratio = statistics.median(one / other for one, other in zip(values, baseline, strict=True))
    return Times(1e3 * statistics.median(values), 1e3 * low, 1e3 * high, ratio)
