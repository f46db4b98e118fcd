"""Errors of bodies in NumPy float64, one body at a time, by a way of their own: the alignment by quaternions."""

import numpy as np


def distance(points, target):
    return np.sqrt(((points - target) ** 2).sum(-1)).mean()


def around_pelvis(joints, hips):
    return joints - (joints[hips[0]] + joints[hips[1]]) / 2


def mpjpe(joints, target, hips):
    pairs = zip(joints, target, strict=True)
    return np.mean([distance(around_pelvis(j, hips), around_pelvis(t, hips)) for j, t in pairs])


def mpve(vertices, joints, target_vertices, target_joints, hips):
    errors = []
    for body, its, true, trues in zip(vertices, joints, target_vertices, target_joints, strict=True):
        errors.append(distance(body - its[list(hips)].mean(0), true - trues[list(hips)].mean(0)))
    return np.mean(errors)


def aligned(points, target):
    """Horn 1987: the rotation is the eigenvector of a 4 x 4 matrix as a quaternion, which cannot be a reflection."""
    x, y = points - points.mean(0), target - target.mean(0)
    s = x.T @ y
    trace, delta = np.trace(s), np.array([s[1, 2] - s[2, 1], s[2, 0] - s[0, 2], s[0, 1] - s[1, 0]])
    n = np.empty((4, 4))
    n[0, 0], n[0, 1:], n[1:, 0] = trace, delta, delta
    n[1:, 1:] = s + s.T - trace * np.eye(3)
    w, a, b, c = np.linalg.eigh(n)[1][:, -1]
    rotation = np.array(
        [
            [w * w + a * a - b * b - c * c, 2 * (a * b - w * c), 2 * (a * c + w * b)],
            [2 * (a * b + w * c), w * w - a * a + b * b - c * c, 2 * (b * c - w * a)],
            [2 * (a * c - w * b), 2 * (b * c + w * a), w * w - a * a - b * b + c * c],
        ]
    )
    turned = x @ rotation.T
    scale = (turned * y).sum() / (x * x).sum()
    return scale * turned + target.mean(0)


def pa_mpjpe(joints, target):
    return np.mean([distance(aligned(j, t), t) for j, t in zip(joints, target, strict=True)])
