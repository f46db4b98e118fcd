"""Pictures by warp's ray casting: a square before a background, counted by hand."""

import numpy as np
import pytest

from dropkey.data.bodies.view import View

pytest.importorskip("warp", reason="pictures are drawn by warp: pip install 'dropkey[mesh]'")

CORNERS = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32)
FACES = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
STRAIGHT = np.array([0, 0, -1], np.float32)


def view(to_lamp=STRAIGHT, distance=4.0):
    return View(distance, 16.0, np.array([16, 16], np.float32), to_lamp, 0.25, 0.5)


@pytest.fixture(scope="module")
def surface():
    from dropkey.data.bodies.raycast import Surface

    return Surface(CORNERS * 3, FACES)  # built on another pose than those that are drawn


def picture(surface, points, colors, seen):
    return surface.picture(points, colors, seen, np.full((32, 32, 3), 0.1, np.float32))


def test_a_square_is_where_it_is_projected_and_as_bright_as_its_light(surface):
    """At 4 m and a focal length of 16 the square reaches from pixel 12 to pixel 20."""
    found = picture(surface, CORNERS, np.full((4, 3), 0.8, np.float32), view())
    inside = np.zeros((32, 32), bool)
    inside[12:20, 12:20] = True
    assert (found[inside] == round(0.8 * 0.75 * 255)).all()
    assert (found[~inside] == round(0.1 * 255)).all()


def test_light_from_the_side_and_from_behind(surface):
    white = np.ones((4, 3), np.float32)
    slanted = np.array([np.sqrt(0.75), 0, -0.5], np.float32)
    assert picture(surface, CORNERS, white, view(slanted))[16, 16, 0] == round((0.25 + 0.5 * 0.5) * 255)
    assert picture(surface, CORNERS, white, view(-STRAIGHT))[16, 16, 0] == round(0.25 * 255)


def test_colors_run_between_corners(surface):
    colors = np.zeros((4, 3), np.float32)
    colors[[1, 2], 0] = 1  # the right side is red
    row = picture(surface, CORNERS, colors, view())[16, 12:20, 0].astype(float) / 255 / 0.75
    assert row == pytest.approx((np.arange(8) + 0.5) / 8, abs=0.02)


def test_what_is_near_hides_what_is_far():
    from dropkey.data.bodies.raycast import Surface

    points = np.concatenate([CORNERS + np.array([0, 0, 1]), 0.25 * CORNERS]).astype(np.float32)
    both = Surface(points, np.concatenate([FACES, FACES + 4]).astype(np.int32))
    colors = np.repeat(np.eye(3, dtype=np.float32)[:2], 4, axis=0)
    found = picture(both, points, colors, view())
    assert found[16, 16].tolist() == [0, round(0.75 * 255), 0]
    assert found[13, 16].tolist() == [round(0.75 * 255), 0, 0]
