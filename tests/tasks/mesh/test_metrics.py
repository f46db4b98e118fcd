"""MPJPE, PA-MPJPE and MPVE: cases counted by hand, and the oracle of tests/oracles/bodies.py."""

import sys
import types

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import bodies

from dropkey.errors import ArgumentError, DropKeyError
from dropkey.tasks.mesh.metrics import MPJPE, MPVE, PAMPJPE

HIPS = (3, 5)


@pytest.fixture(autouse=True)
def _roma(monkeypatch):
    """Where roma is missing, the singular value decomposition stands in: what is tested is what is made of it."""
    try:
        import roma  # noqa: F401
    except ModuleNotFoundError:
        double = types.SimpleNamespace(rigid_points_registration=registration)
        monkeypatch.setitem(sys.modules, "roma", double)


def registration(points, target, compute_scaling):
    x, y = points - points.mean(1, keepdim=True), target - target.mean(1, keepdim=True)
    u, s, v = torch.linalg.svd(y.transpose(1, 2) @ x)
    signs = torch.ones_like(s)
    signs[:, 2] = torch.linalg.det(u @ v).sign()
    rotation = u @ (signs[:, :, None] * v)
    scale = (s * signs).sum(1) / x.square().sum((1, 2))
    middle = points.mean(1, keepdim=True) @ rotation.transpose(1, 2)
    return rotation, (target.mean(1, keepdim=True) - scale[:, None, None] * middle)[:, 0], scale


def sample(seed, count=4, points=9):
    generator = np.random.default_rng(seed)
    return generator.normal(0, 300, (count, points, 3)), generator.normal(0, 300, (count, points, 3))


def value(metric, *arrays):
    metric.update(*(torch.as_tensor(array) for array in arrays))
    return float(metric.compute())


def rotation(seed):
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else q[:, [1, 0, 2]]


@pytest.mark.parametrize("seed", range(5))
def test_all_agree_with_the_oracle(seed):
    joints, true_joints = sample(seed)
    vertices, true_vertices = sample(seed + 50, points=31)
    assert value(MPJPE(9, HIPS), joints, true_joints) == pytest.approx(bodies.mpjpe(joints, true_joints, HIPS), 1e-9)
    assert value(PAMPJPE(9), joints, true_joints) == pytest.approx(bodies.pa_mpjpe(joints, true_joints), 1e-9)
    expected = bodies.mpve(vertices, joints, true_vertices, true_joints, HIPS)
    assert value(MPVE(31, HIPS), vertices, joints, true_vertices, true_joints) == pytest.approx(expected, 1e-9)


def test_batches_and_one_call_are_the_same():
    joints, target = sample(7, count=5)
    for metric in (MPJPE(9, HIPS), PAMPJPE(9)):
        whole = value(metric.clone(), joints, target)
        metric.update(torch.as_tensor(joints[:2]), torch.as_tensor(target[:2]))
        assert value(metric, joints[2:], target[2:]) == pytest.approx(whole, 1e-12)


def test_a_case_counted_by_hand():
    """Hips at x = -100 and 100. A third joint is 30 mm off, and one hip 40 mm, which moves the pelvis by 20."""
    true = torch.tensor([[[-100.0, 0, 0], [100.0, 0, 0], [0, 0, 500.0]]])
    error = MPJPE(3, (0, 1))
    error.update(true + torch.tensor([[0.0, 0, 0], [0, 0, 0], [0, 30, 0]]), true)
    assert float(error.compute()) == pytest.approx(10)
    error.reset()
    error.update(true + torch.tensor([[0.0, 0, 0], [0, 40, 0], [0, 0, 0]]), true)
    assert error.per_point().tolist() == pytest.approx([20, 20, 20])


def test_the_surface_is_centered_by_the_joints():
    """The vertices are exact around the pelvis, 50 mm off around anything else."""
    true = torch.zeros(1, 4, 3)
    hips = torch.zeros(1, 2, 3)
    shift = torch.tensor([30.0, 0, 40.0])
    assert value(MPVE(4, (0, 1)), true + shift, hips + shift, true, hips) == pytest.approx(0)
    assert value(MPVE(4, (0, 1)), true + shift, hips, true, hips) == pytest.approx(50)


@given(seed=st.integers(0, 1000), scale=st.floats(0.2, 5))
def test_alignment_undoes_rotation_scale_and_shift(seed, scale):
    joints, _ = sample(seed)
    moved = scale * joints @ rotation(seed).T + np.array([50.0, -900, 20])
    assert value(PAMPJPE(9), moved, joints) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("axis", range(3))
def test_a_mirrored_body_is_wrong(axis):
    joints, _ = sample(3)
    mirrored = joints.copy()
    mirrored[..., axis] *= -1
    error = value(PAMPJPE(9), mirrored, joints)
    assert error > 50
    assert error == pytest.approx(bodies.pa_mpjpe(mirrored, joints), 1e-9)


def test_alignment_is_never_worse_in_squares():
    joints, target = sample(11)
    for each, true in zip(joints, target, strict=True):
        after = bodies.aligned(each, true) - true
        before = (each - each.mean(0)) - (true - true.mean(0))
        assert (after**2).sum() <= (before**2).sum() + 1e-6


def test_other_shapes_are_refused():
    with pytest.raises(ArgumentError, match=r"joints must be \(B, 9, 3\)"):
        MPJPE(9, HIPS).update(torch.zeros(2, 8, 3), torch.zeros(2, 8, 3))
    with pytest.raises(ArgumentError, match=r"vertices must be \(B, 4, 3\)"):
        MPVE(4, HIPS).update(torch.zeros(2, 4, 3), torch.zeros(2, 9, 3), torch.zeros(1, 4, 3), torch.zeros(2, 9, 3))


def test_a_missing_roma_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "roma", None)
    with pytest.raises(DropKeyError, match=r"roma: pip install 'dropkey\[mesh\]'"):
        PAMPJPE(9).update(torch.zeros(2, 9, 3), torch.zeros(2, 9, 3))
