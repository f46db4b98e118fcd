"""Attention laid over images as pixels: what a training run can afford to draw every few epochs."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from dropkey.diagnostics.chosen import chosen_sites, look_of, picture, rolled_look
from dropkey.diagnostics.report import Report

__all__ = ["overlay_pixels"]

_SIDES = 96, 224  # least and most pixels of the longer side of a tile
_GAP = 4
# From black over purple and orange to pale yellow, evenly spaced.
_COLORS = torch.tensor([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]]) / 255


def overlay_pixels(report: Report) -> Tensor:
    """Draw a table: a row for each image; in it the image, where up to six blocks look, and the rollout.

    It shows the class token's attention, or the mean over all queries where there is none, as the mean over the heads.
    Each tile has a scale of its own, from its 1st to its 99th percentile.

    Args:
        report: of ``dropkey.diagnose``.

    Returns:
        uint8 (3, height, width).

    Raises:
        ArgumentError: no site has patches as keys.
    """
    sites = chosen_sites(report, None)
    rows = []
    for image in range(len(report.images)):
        pixels = _sized(picture(report, image))
        looks = [look_of(site, image, None).mean(0) for site in sites]
        rolled = rolled_look(report, image, None)
        tiles = [
            pixels,
            *(_laid_over(pixels, look) for look in [*looks, *([] if rolled is None else [rolled])]),
        ]
        rows.append(_joined(tiles, axis=2))
    return (_joined(rows, axis=1) * 255).round().to(torch.uint8)


def _laid_over(pixels: Tensor, look: Tensor) -> Tensor:
    gray = pixels.mean(0)
    fine = interpolate(look[None, None], gray.shape, mode="bilinear", align_corners=False)[0, 0]
    low, high = fine.flatten().quantile(torch.tensor([0.01, 0.99]))
    share = ((fine - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    place = share * (len(_COLORS) - 1)
    before = place.floor().long().clamp(max=len(_COLORS) - 2)
    color = torch.lerp(_COLORS[before], _COLORS[before + 1], (place - before)[..., None]).permute(2, 0, 1)
    return torch.lerp(gray.expand(3, -1, -1), color, 0.15 + 0.6 * share)


def _sized(pixels: Tensor) -> Tensor:
    longer = max(pixels.shape[-2:])
    factor = min(max(longer, _SIDES[0]), _SIDES[1]) / longer
    size = [max(1, round(side * factor)) for side in pixels.shape[-2:]]
    return interpolate(pixels[None], size, mode="bilinear", align_corners=False, antialias=True)[0]


def _joined(tiles: list[Tensor], axis: int) -> Tensor:
    shape = list(tiles[0].shape)
    shape[axis] = _GAP
    between = torch.ones(shape)
    return torch.cat([part for tile in tiles for part in (tile, between)][:-1], axis)
