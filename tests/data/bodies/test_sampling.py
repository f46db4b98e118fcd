"""What is drawn for a body: angles, contact, clothes, background, view; none of it needs anny or warp."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dropkey.data.bodies.angles import ANGLES, ROOT, Angle, draw_angles
from dropkey.data.bodies.backgrounds import background
from dropkey.data.bodies.clothes import Wardrobe
from dropkey.data.bodies.contact import _distance, touches_itself
from dropkey.data.bodies.poses import bone_rotations
from dropkey.data.bodies.view import View

SHARES = 1 + 3 + len(ANGLES)
BONES = ["root", "spine05", "spine03", "spine01", "neck01", "head", "eye.L", "eye.R"]
LIMBS = ("upperleg01", "lowerleg01", "foot", "toe2-1", "clavicle", "upperarm01", "lowerarm01", "wrist", "finger3-3")
BONES += [f"{name}.{side}" for side in "LR" for name in LIMBS]
HEADS = {
    "root": (0, 0, 0),
    "spine05": (0, 0, 0),
    "spine03": (0, 0, 0.2),
    "spine01": (0, 0, 0.34),
    "neck01": (0, 0, 0.51),
    "head": (0, 0, 0.6),
    "eye": (0.03, -0.1, 0.65),
    "upperleg01": (0.1, 0, 0),
    "lowerleg01": (0.13, 0, -0.4),
    "foot": (0.17, 0, -0.8),
    "toe2-1": (0.17, -0.14, -0.84),
    "clavicle": (0.02, 0, 0.45),
    "upperarm01": (0.17, 0, 0.43),
    "lowerarm01": (0.33, -0.02, 0.24),
    "wrist": (0.45, -0.17, 0.12),
    "finger3-3": (0.5, -0.29, 0.02),
}


def rest():
    """Heads of bones at rest, the right side the mirror image of the left."""
    sides = {"": 1, "L": 1, "R": -1}
    heads = {}
    for bone in BONES:
        name, _, side = bone.partition(".")
        x, y, z = HEADS[name]
        heads[bone] = torch.tensor([sides[side] * x, y, z], dtype=torch.float32)
    return heads


def shares(count, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).uniform(1e-3, 1 - 1e-3, (count, SHARES))).float()


@given(share=st.floats(0.001, 0.999))
def test_an_angle_stays_within_its_limits_and_rises(share):
    angle = Angle(-18, 28, -85, 18)
    low, high = angle.at(torch.tensor([share, min(share + 0.0005, 0.9995)], dtype=torch.float64)).tolist()
    assert -85 <= low <= high <= 18


def test_an_angle_has_the_truncated_normal_distribution():
    """Against a million draws of a normal distribution of which those outside are thrown away."""
    angle = Angle(30, 30, 0, 105)
    found = angle.at(torch.linspace(0.0005, 0.9995, 1000, dtype=torch.float64)).numpy()
    drawn = np.random.default_rng(0).normal(30, 30, 1_000_000)
    drawn = drawn[(drawn >= 0) & (drawn <= 105)]
    assert found.mean() == pytest.approx(drawn.mean(), abs=0.2)
    assert found.std() == pytest.approx(drawn.std(), abs=0.2)


def test_joints_never_bend_beyond_what_people_can():
    angles = draw_angles(shares(2000))
    for side in "LR":
        assert angles[f"lowerleg_x.{side}"].min() >= 0, "a knee does not bend forward"
        assert (angles[f"lowerleg_x.{side}"] >= -0.6 * angles[f"upperleg_x.{side}"] - 1e-4).all()
        assert angles[f"lowerarm_bend.{side}"].min() > -50
    for axis, reach in ROOT.items():
        assert angles[f"root_{axis}"].abs().max() <= reach
    assert angles["root_z"].std() > 30


def test_rotations_are_rotations_and_the_sides_mirror_each_other():
    given = shares(50)
    angles = draw_angles(given)
    for name in list(angles):
        if name.endswith(".R"):
            angles[name] = angles[name[:-1] + "L"]
    turned = bone_rotations(angles, BONES, rest())
    eye = torch.eye(3).expand_as(turned)
    assert torch.allclose(turned @ turned.transpose(-1, -2), eye, atol=1e-5)
    assert torch.allclose(torch.linalg.det(turned), torch.ones(turned.shape[:2]), atol=1e-5)
    mirror = torch.diag(torch.tensor([-1.0, 1, 1]))
    for limb in LIMBS:
        left, right = turned[:, BONES.index(f"{limb}.L")], turned[:, BONES.index(f"{limb}.R")]
        assert torch.allclose(right, mirror @ left @ mirror, atol=1e-5), limb


def test_a_knee_bends_the_shin_back_and_an_elbow_the_hand_up():
    angles = {name: value * 0 for name, value in draw_angles(shares(1)).items()}
    angles["lowerleg_x.L"] += 90
    angles["lowerarm_bend.L"] += 40
    turned = bone_rotations(angles, BONES, rest())[0]
    shin = turned[BONES.index("lowerleg01.L")] @ torch.tensor([0.0, 0, -1])
    assert shin[1] > 0.99, "to the back"
    heads = rest()
    forearm, arm = heads["wrist.L"] - heads["lowerarm01.L"], heads["lowerarm01.L"] - heads["upperarm01.L"]
    bent = turned[BONES.index("lowerarm01.L")] @ forearm
    assert torch.cosine_similarity(bent, arm, dim=0) < torch.cosine_similarity(forearm, arm, dim=0) - 0.3


def test_contact_is_seen():
    apart = torch.stack([rest()[bone] for bone in BONES])
    hand_in_belly, crossed = apart.clone(), apart.clone()
    hand_in_belly[BONES.index("wrist.L")] = torch.tensor([0.05, -0.1, 0.1])
    hand_in_belly[BONES.index("finger3-3.L")] = torch.tensor([0.0, -0.1, 0.1])
    crossed[BONES.index("foot.L")] = apart[BONES.index("foot.R")]
    found = touches_itself(torch.stack([apart, hand_in_belly, crossed]), BONES)
    assert found.tolist() == [False, True, True]


@given(seed=st.integers(0, 200))
def test_distance_of_segments_is_the_least_over_their_points(seed):
    a, b, c, d = torch.from_numpy(np.random.default_rng(seed).normal(size=(4, 3)))
    steps = torch.linspace(0, 1, 201, dtype=torch.float64)[:, None]
    grid = ((a + steps * (b - a))[:, None] - (c + steps * (d - c))[None]).norm(dim=-1).min()
    found = _distance(*(point[None] for point in (a, b, c, d)))
    assert float(found) <= float(grid) + 1e-9
    assert float(found) == pytest.approx(float(grid), abs=0.02)


def test_clothes_cover_what_their_bones_move():
    bones = ["root", "spine01", "upperarm01.L", "lowerarm01.L", "head", "eye.L", "foot.L"]
    dominant = np.repeat(np.arange(7), 20)
    template = np.random.default_rng(0).normal(size=(140, 3)).astype(np.float32)
    wardrobe = Wardrobe(bones, dominant, template)
    outfits = [wardrobe.dressed(np.random.default_rng(seed)) for seed in range(30)]
    for colors in outfits:
        assert colors.shape == (140, 3)
        assert 0 <= colors.min() <= colors.max() <= 1
        assert np.ptp(colors[20:40], axis=0).max() == 0, "a shirt has one color"
    sleeves = [bool((colors[40:60] == colors[20]).all()) for colors in outfits]
    assert any(sleeves)
    assert not all(sleeves)


def test_backgrounds_differ_and_repeat():
    first, again, other = (background(64, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (64, 64, 3)
    assert first.dtype == np.float32
    assert (first == again).all()
    assert np.abs(first - other).mean() > 0.05
    assert first.std() > 0.05


@given(seed=st.integers(0, 300))
def test_a_view_shows_the_whole_body(seed):
    draw = np.random.default_rng(seed)
    points = draw.uniform([-0.5, -0.9, -0.4], [0.5, 0.8, 0.4], (200, 3)).astype(np.float32)
    view = View.drawn(points, 128, draw)
    seen = view.project(points)
    assert seen.min() >= 0
    assert seen.max() <= 128
    assert 0.77 * 128 <= np.ptp(seen, axis=0).max() <= 0.96 * 128
    assert np.linalg.norm(view.to_lamp) == pytest.approx(1, abs=1e-5)
    assert view.to_lamp[1] < 0, "light comes from above"
    assert 3 <= view.distance <= 6
