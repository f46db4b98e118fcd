"""Whether parts of a body run into each other: capsules between the heads of bones."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["touches_itself"]

# A capsule: the bones at its ends, and its radius in meters. Names end in the side, for both sides.
_MIDDLE = {
    "torso": ("spine03", "spine01", 0.12),
    "belly": ("spine05", "spine03", 0.12),
    "neck": ("neck01", "head", 0.06),
    "skull": ("head", "eye", 0.09),
}
_SIDES = {
    "hand": ("wrist", "finger3-3", 0.035),
    "wrist": ("wrist", "wrist", 0.03),
    "forearm": ("lowerarm01", "wrist", 0.035),
    "elbow": ("lowerarm01", "lowerarm01", 0.04),
    "thigh": ("upperleg01", "lowerleg01", 0.075),
    "shin": ("lowerleg01", "foot", 0.045),
    "foot": ("foot", "toe2-1", 0.04),
}
_ARM = ("hand", "wrist", "forearm", "elbow")
_APART = [
    *[(f"{part}.{side}", middle) for side in "LR" for part in _ARM for middle in ("torso", "belly")],
    *[(f"hand.{side}", middle) for side in "LR" for middle in ("neck", "skull")],
    *[(f"hand.{side}", f"{leg}.{other}") for side in "LR" for other in "LR" for leg in ("thigh", "shin")],
    *[(f"{one}.L", f"{other}.R") for one in ("shin", "foot") for other in ("shin", "foot")],
    *[(f"{one}.L", f"{other}.R") for one in ("hand", "forearm") for other in ("hand", "forearm")],
]


def touches_itself(heads: Tensor, bones: Sequence[str]) -> Tensor:
    """Return (B,) bool: whether parts of a body that should be apart are not.

    Args:
        heads: positions (B, bones, 3) of the heads of the bones in meters.
        bones: names of the bones.
    """
    capsules = {name: _capsule(heads, bones, *ends, "") for name, ends in _MIDDLE.items()}
    capsules |= {
        f"{name}.{side}": _capsule(heads, bones, *ends, f".{side}") for name, ends in _SIDES.items() for side in "LR"
    }
    pairs = [(*capsules[one], *capsules[other]) for one, other in _APART]
    a, b, ra, c, d, rc = (torch.stack(parts, 1) for parts in zip(*pairs, strict=True))
    touching: Tensor = (_distance(a, b, c, d) < ra + rc).any(1)
    return touching


def _capsule(
    heads: Tensor, bones: Sequence[str], start: str, end: str, radius: float, side: str
) -> tuple[Tensor, Tensor, Tensor]:
    places = [_place(heads, bones, name, side) for name in (start, end)]
    return places[0], places[1], torch.full_like(places[0][:, 0], radius)


def _place(heads: Tensor, bones: Sequence[str], name: str, side: str) -> Tensor:
    if name == "eye":
        return (heads[:, bones.index("eye.L")] + heads[:, bones.index("eye.R")]) / 2
    return heads[:, bones.index(name + side)]


def _distance(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Return the distance of segments a-b and c-d, all (..., 3); their lengths may be 0.

    Where both nearest points are inside, they solve a 2 x 2 system; else one of the four ends is nearest.
    """
    u, v, w = b - a, d - c, a - c
    uu, uv, vv = (u * u).sum(-1), (u * v).sum(-1), (v * v).sum(-1)
    uw, vw = (u * w).sum(-1), (v * w).sum(-1)
    det = (uu * vv - uv * uv).clamp(min=1e-12)
    s = ((uv * vw - vv * uw) / det).clamp(0, 1)
    t = ((uu * vw - uv * uw) / det).clamp(0, 1)
    inside = (w + s.unsqueeze(-1) * u - t.unsqueeze(-1) * v).norm(dim=-1)
    ends = [_to_segment(a, c, v), _to_segment(b, c, v), _to_segment(c, a, u), _to_segment(d, a, u)]
    return torch.stack([inside, *ends]).amin(0)


def _to_segment(point: Tensor, start: Tensor, along: Tensor) -> Tensor:
    share = ((point - start) * along).sum(-1) / (along * along).sum(-1).clamp(min=1e-12)
    distance: Tensor = (point - start - share.clamp(0, 1).unsqueeze(-1) * along).norm(dim=-1)
    return distance
