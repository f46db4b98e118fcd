"""Where two boxes lie to each other, as numbers for a network."""

import torch
from torch import Tensor

from dropkey.tasks.detection.families import corners

__all__ = ["NUM_BOX_FEATURES", "box_features"]

NUM_BOX_FEATURES = 21
_SMALLEST = 1e-4


def box_features(subjects: Tensor, objects: Tensor) -> Tensor:
    """Return features of pairs of boxes (..., 21).

    Both boxes; the offset of their centers, plain and over the sides of each; the sides that they share, below 0 where
    there is a gap; the logarithms of the ratios of their sides; IoU, and the shared area over each area.

    Args:
        subjects: (..., 4), center and sides in shares of the image.
        objects: likewise.
    """
    one, other = corners(subjects), corners(objects)
    sides, other_sides = subjects[..., 2:].clamp(min=_SMALLEST), objects[..., 2:].clamp(min=_SMALLEST)
    offset = objects[..., :2] - subjects[..., :2]
    shared = torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(one[..., :2], other[..., :2])
    area, other_area = sides.prod(-1, keepdim=True), other_sides.prod(-1, keepdim=True)
    inside = shared.clamp(min=0).prod(-1, keepdim=True)
    return torch.cat(
        [
            *(subjects, objects, offset, offset / sides, offset / other_sides, shared),
            *((other_sides / sides).log(), inside / (area + other_area - inside), inside / area, inside / other_area),
        ],
        dim=-1,
    )
