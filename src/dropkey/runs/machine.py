"""What a number was measured on."""

import platform
from pathlib import Path
from typing import Any

import timm
import torch

import dropkey

__all__ = ["machine", "processor"]


def machine() -> dict[str, Any]:
    """Return device, threads and versions as plain data."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
    return {
        "device": device,
        "threads": torch.get_num_threads(),
        "dropkey": dropkey.__version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "python": platform.python_version(),
    }


def processor() -> str:
    """Return the name of the CPU and the number of its cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()
