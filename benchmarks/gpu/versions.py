"""Print versions and card as JSON."""

import json
from importlib.metadata import PackageNotFoundError, version

import torch

PACKAGES = ("torch", "triton", "numpy", "timm", "pytest", "matplotlib")


def installed(name: str) -> str:
    """Return the version of a package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def card() -> dict:
    """Return what torch sees of the GPU."""
    if not torch.cuda.is_available():
        return {"card": "none: no GPU"}
    seen = torch.cuda.get_device_properties(0)
    return {
        "card": seen.name,
        "capability": f"{seen.major}.{seen.minor}",
        "multiprocessors": seen.multi_processor_count,
        "memory_gib": round(seen.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
    }


if __name__ == "__main__":
    print(json.dumps({name: installed(name) for name in PACKAGES} | card()))
