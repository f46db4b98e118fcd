"""What stands behind a sampled body: a gradient, a floor, boxes and noise. Nothing of it tells anything."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["background"]

Floats = NDArray[np.float32]


def background(size: int, draw: np.random.Generator) -> Floats:
    """Return an image (size, size, 3) in about [0, 1]."""
    top, bottom, floor = draw.uniform(0.1, 0.9, (3, 3)).astype(np.float32)
    share = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    rows = (1 - share) * top + share * bottom
    horizon = int(size * draw.uniform(0.55, 0.95))
    rows[horizon:] = floor * np.linspace(0.8, 1.0, size - horizon, dtype=np.float32)[:, None]
    image = np.repeat(rows[:, None], size, axis=1)
    for _ in range(draw.integers(7)):
        (row, col), (height, width) = draw.integers(0, size, 2), draw.integers(size // 16, size // 2, 2)
        color = draw.uniform(0.05, 0.95, 3).astype(np.float32)
        image[row : row + height, col : col + width] = color
    image += _smooth_noise(size, draw)
    image += 0.02 * draw.standard_normal((size, size, 1), dtype=np.float32)
    return image


def _smooth_noise(size: int, draw: np.random.Generator) -> Floats:
    """Return bilinear noise (size, size, 1) of a coarse and a fine grid."""
    noise = np.zeros((size, size), np.float32)
    for cells, strength in ((4, 0.12), (16, 0.06)):
        grid = strength * draw.standard_normal((cells + 1, cells + 1), dtype=np.float32)
        place = np.linspace(0, cells, size, endpoint=False, dtype=np.float32)
        low = place.astype(np.int64)
        share = place - low
        weights = np.zeros((size, cells + 1), np.float32)
        weights[np.arange(size), low] = 1 - share
        weights[np.arange(size), low + 1] += share
        noise += weights @ grid @ weights.T
    return noise[..., None]
