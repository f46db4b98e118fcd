"""Coarser versions of a surface, and the way back: which vertices stand for it, and how others follow them."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["farthest_vertices", "interpolation"]

Floats = NDArray[np.float32]


def farthest_vertices(template: Floats, count: int) -> NDArray[np.int64]:
    """Return the indices (count,) of vertices that are spread evenly: each is the farthest from all before it.

    Args:
        template: (V, 3) a body at rest.
        count: at most V.

    Source: Gonzalez, Clustering to minimize the maximum intercluster distance, 1985.
    """
    chosen = np.zeros(count, np.int64)
    distance = np.full(len(template), np.inf)
    for place in range(1, count):
        distance = np.minimum(distance, np.linalg.norm(template - template[chosen[place - 1]], axis=1))
        chosen[place] = distance.argmax()
    return chosen


def interpolation(fine: Floats, coarse: Floats, neighbors: int = 3) -> Floats:
    """Return weights (fine, coarse) by which vertices follow the nearest coarse ones, by inverse distance."""
    neighbors = min(neighbors, len(coarse))
    distance = np.linalg.norm(fine[:, None] - coarse[None], axis=-1)
    near = np.argsort(distance, axis=1, kind="stable")[:, :neighbors]
    closeness = 1 / (np.take_along_axis(distance, near, axis=1) + 1e-3 * distance.mean())
    weights = np.zeros(distance.shape, np.float32)
    np.put_along_axis(weights, near, (closeness / closeness.sum(1, keepdims=True)).astype(np.float32), axis=1)
    return weights
