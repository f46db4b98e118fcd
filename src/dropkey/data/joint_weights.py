"""Joints as sums of vertices near them, learned from bodies of which both are known."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["fit_joint_weights"]

Floats = NDArray[np.float32]


def fit_joint_weights(vertices: Floats, joints: Floats, neighbors: int = 16) -> Floats:
    """Return weights (J, V), each row with the sum 1, by least squares over bodies.

    Args:
        vertices: (B, V, 3) bodies.
        joints: (B, J, 3) their joints.
        neighbors: number of vertices, the nearest on the mean of the distances, from which a joint is made.
    """
    weights = np.zeros((joints.shape[1], vertices.shape[1]), np.float32)
    neighbors = min(neighbors, vertices.shape[1])
    for joint in range(joints.shape[1]):
        target = joints[:, joint, None].astype(np.float64)
        far = np.linalg.norm(vertices - target, axis=-1).mean(0)
        near = np.argsort(far, kind="stable")[:neighbors]
        chosen = vertices[:, near].astype(np.float64)
        middle = chosen.mean(1, keepdims=True)  # around it, a body that moves as a whole moves its joints along
        columns = (chosen - middle).transpose(0, 2, 1).reshape(-1, neighbors)
        row = np.linalg.lstsq(columns, (target - middle).reshape(-1), rcond=1e-6)[0]
        weights[joint, near] = row - row.mean() + 1 / neighbors
    return weights
