"""Colors that every kind of color vision tells apart, and every one can see."""

import itertools

import numpy as np
import pytest

from dropkey.pages.palette import DARK, LIGHT, look

PALETTES = {"light": (LIGHT, "#ffffff"), "dark": (DARK, "#1c2129")}

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
VISION = {
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)


def linear(color):
    value = np.array([int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    xyz = TO_XYZ @ rgb / [0.95047, 1, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("scheme", PALETTES)
def test_any_two_colors_differ(scheme, vision):
    seen = [lab(np.clip(VISION[vision] @ linear(color), 0, 1)) for color in PALETTES[scheme][0]]
    assert min(np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2)) > 18


@pytest.mark.parametrize("scheme", PALETTES)
def test_every_color_stands_out_from_the_page(scheme):
    colors, behind = PALETTES[scheme]
    back = (TO_XYZ @ linear(behind))[1]
    for color in colors:
        low, high = sorted([(TO_XYZ @ linear(color))[1], back])
        assert (high + 0.05) / (low + 0.05) > 3.5, color


def test_thirty_two_lines_differ_in_color_or_dashes():
    assert len({look(number) for number in range(32)}) == 32
    assert all(look(number).split()[1] != look(number + 1).split()[1] for number in range(7))
