"""How much memory is left, so that maps that would not fit are refused before they are made."""

import os
from pathlib import Path

import torch

__all__ = ["free_bytes"]

_GROUP = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int:
    """Return the bytes that are free on a device, as far as the system says; on a CPU within the process' limits."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return 2**62
    return min(_of_machine(), _of_group())


def _of_machine() -> int:
    info = Path("/proc/meminfo")
    if info.exists():
        lines = dict(line.split(":", 1) for line in info.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    if "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 2**62


def _of_group() -> int:
    """What a container leaves: its limit without what it holds, cached files aside."""
    try:
        most = (_GROUP / "memory.max").read_text().strip()
        if most == "max":
            return 2**62
        statistics = dict(line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
        held = int((_GROUP / "memory.current").read_text()) - int(statistics.get("inactive_file", 0))
    except (OSError, ValueError):
        return 2**62
    return int(most) - held
