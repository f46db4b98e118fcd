"""What sampled bodies wear: a color for each vertex, by the bone that moves it most."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Wardrobe"]

Floats = NDArray[np.float32]

_SKIN = np.array([[0.95, 0.80, 0.69], [0.87, 0.67, 0.53], [0.68, 0.48, 0.35], [0.42, 0.28, 0.20]], np.float32)
_HAIR = np.array([[0.10, 0.08, 0.07], [0.30, 0.20, 0.12], [0.62, 0.48, 0.28], [0.55, 0.53, 0.50]], np.float32)
_PARTS = {
    "shirt": ("spine", "clavicle", "shoulder", "breast"),
    "sleeve": ("upperarm",),
    "long sleeve": ("lowerarm",),
    "shorts": ("root", "pelvis", "upperleg"),
    "legs": ("lowerleg",),
    "shoes": ("foot", "toe"),
    "eyes": ("eye",),
}


class Wardrobe:
    """Which vertex belongs to what.

    Args:
        bones: names of the bones.
        dominant: (V,) index of the bone that moves a vertex most.
        template: (V, 3) the body at rest in a camera's axes (y down), which says where hair grows.
    """

    def __init__(self, bones: Sequence[str], dominant: NDArray[Any], template: Floats) -> None:
        self.parts = {}
        for part, starts in _PARTS.items():
            chosen = [index for index, bone in enumerate(bones) if bone.startswith(starts)]
            self.parts[part] = np.isin(dominant, chosen)
        head = np.isin(dominant, [index for index, bone in enumerate(bones) if bone in ("head", "neck03")])
        head &= ~self.parts["eyes"]
        height, depth = template[:, 1], template[:, 2]
        top, back = height[head].min(), depth[head].max()
        tall = height[head].max() - top
        crown, nape = height < top + 0.18 * tall, (depth > back - 0.11) & (height < top + 0.6 * tall)
        self.parts["hair"] = head & (crown | nape)
        self.size = len(dominant)

    def dressed(self, draw: np.random.Generator) -> Floats:
        """Return colors (V, 3) in [0, 1] of one outfit."""
        skin = _between(_SKIN, draw)
        colors = np.tile(skin, (self.size, 1))
        shirt, trousers, shoes = draw.uniform(0.05, 0.95, (3, 3)).astype(np.float32)
        sleeves, legs = draw.integers(3), draw.integers(2)
        worn = {
            "hair": _between(_HAIR, draw),
            "shirt": shirt,
            "shorts": trousers,
            "shoes": shoes,
            "eyes": np.full(3, 0.95, np.float32),
            **({"sleeve": shirt} if sleeves else {}),
            **({"long sleeve": shirt} if sleeves == 2 else {}),
            **({"legs": trousers} if legs else {}),
        }
        for part, color in worn.items():
            colors[self.parts[part]] = color
        return colors


def _between(palette: Floats, draw: np.random.Generator) -> Floats:
    """Return a color between two neighbors of a palette."""
    place = draw.uniform(0, len(palette) - 1)
    first = min(int(place), len(palette) - 2)
    share = np.float32(place - first)
    mixed: Floats = (1 - share) * palette[first] + share * palette[first + 1]
    return mixed
