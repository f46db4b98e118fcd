"""Time on the device: interleaved rounds, the cache flushed before each call, and the host kept ahead of the device."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

__all__ = ["Timed", "flush", "interleaved", "peak_bytes", "warmed"]

Run = Callable[[], object]
FLUSHED_BYTES = 256 << 20
CYCLES_PER_MS = 1_980_000  # of the fastest clock, so that a wait is rather too long


class Timed(NamedTuple):
    """Milliseconds of one contender."""

    median: float
    p10: float
    p90: float
    host: float  # until the host has handed the work over

    def facts(self) -> dict[str, float]:
        """Return the numbers for the report."""
        return {
            "median_ms": round(self.median, 5),
            "p10_ms": round(self.p10, 5),
            "p90_ms": round(self.p90, 5),
            "host_ms": round(self.host, 3),
        }


_buffer: list[torch.Tensor] = []


def flush() -> None:
    """Write more bytes than the cache holds."""
    if not _buffer:
        _buffer.append(torch.empty(FLUSHED_BYTES, dtype=torch.int8, device="cuda"))
    _buffer[0].zero_()


def warmed(run: Run, calls: int = 3) -> float:
    """Call a few times; return the milliseconds that the host took for the last call."""
    host = 0.0
    for _ in range(calls):
        began = time.perf_counter()
        run()
        host = (time.perf_counter() - began) * 1e3
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    return host


def interleaved(
    runs: Mapping[str, Run], hosts: Mapping[str, float], rounds: int, is_over: Callable[[], bool] = lambda: False
) -> dict[str, Timed]:
    """Time each run once a round."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        if number >= 5 and is_over():
            break
        one_round = _on_gpu if torch.cuda.is_available() else _on_cpu
        for name, milliseconds in one_round(runs, hosts).items():
            times[name].append(milliseconds)
    return {name: _timed(found, hosts[name]) for name, found in times.items()}


def _on_gpu(runs: Mapping[str, Run], hosts: Mapping[str, float]) -> dict[str, float]:
    events = {}
    for name, run in runs.items():
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush()
        # The device waits until the host has queued the whole call: what is measured are kernels, not launches.
        torch.cuda._sleep(int((0.2 + 1.5 * min(hosts[name], 20.0)) * CYCLES_PER_MS))
        begin.record()
        run()
        end.record()
        events[name] = (begin, end)
        torch.cuda.synchronize()
    return {name: begin.elapsed_time(end) for name, (begin, end) in events.items()}


def _on_cpu(runs: Mapping[str, Run], hosts: Mapping[str, float]) -> dict[str, float]:
    found = {}
    for name, run in runs.items():
        began = time.perf_counter()
        run()
        found[name] = (time.perf_counter() - began) * 1e3
    return found


def _timed(times: list[float], host: float) -> Timed:
    ordered = sorted(times)
    last = len(ordered) - 1
    return Timed(statistics.median(ordered), ordered[round(0.1 * last)], ordered[round(0.9 * last)], host)


def peak_bytes(run: Run) -> int | None:
    """Return the peak memory of one call above what was allocated before it."""
    if not torch.cuda.is_available():
        return None
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def facts_of(timed: Timed, **more: Any) -> dict[str, Any]:
    """Return the numbers and whatever else is known."""
    return {**timed.facts(), **more}
