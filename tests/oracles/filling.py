"""Numbers that look random and are the same everywhere: weights and images that need no file."""

import zlib

import torch
from torch import Tensor

__all__ = ["filled", "filled_images"]

# Smaller queries and keys, larger directions: otherwise a Performer's features vanish, and its attention with them.
_PERFORMER = {"kqv.weight": 0.2, "w": 4.0}


def noise(name: str, shape: tuple[int, ...]) -> Tensor:
    """Return float64 numbers in [-1, 1) that depend on the name and the index alone."""
    index = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    waves = torch.sin(12.9898 * index + zlib.crc32(name.encode()) % 1000) * 43758.5453
    return (2 * (waves - waves.floor()) - 1).view(shape)


def filled(name: str, shape: tuple[int, ...]) -> Tensor:
    """Return a parameter or buffer: small weights, norms near 1, variances above 0."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    values = noise(name, shape)
    is_scale = len(shape) == 1 and name.endswith("weight")
    if is_scale or name.endswith("running_var"):
        return (1 + 0.3 * values).float()
    fan_in = torch.Size(shape[1:]).numel() if len(shape) > 1 else 10
    return (values * (3 / fan_in) ** 0.5 * _PERFORMER.get(name.rsplit(".attention", 1)[-1][2:], 1)).float()


def filled_images(batch: int, size: int) -> Tensor:
    """Return images (batch, 3, size, size) in [-1, 1)."""
    return noise("images", (batch, 3, size, size)).float()
