"""Where a query looks: its attention in the last layer of the decoder, through capture."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dropkey.adapters.discover import attention_modules
from dropkey.adapters.names import unwrapped_names
from dropkey.diagnostics.capture import capture
from dropkey.tasks.detection.parts import part_of_site
from dropkey.tasks.interaction.found_pairs import FoundPairs

__all__ = ["Look", "found_and_maps"]


class Look(NamedTuple):
    """What a decoder's queries attend to, in one image.

    Args:
        weights: (Q, keys), the mean over heads.
        grid: (rows, cols) of the keys where they are places of the image; None where they are the queries themselves,
            in decoders whose cross-attention has no keys (deformable attention).
        site: name of the module.
    """

    weights: Tensor
    grid: tuple[int, int] | None
    site: str


@torch.no_grad()
def found_and_maps(network: nn.Module, images: dict[str, Tensor]) -> tuple[FoundPairs, Look | None]:
    """Return what a network finds in one image, and the last attention of its decoder; None if it has none."""
    names = unwrapped_names(network)
    parts = {names[found.module]: part_of_site(found) for found in attention_modules(network)}
    cross = [name for name, part in parts.items() if part == "cross"]
    decoder = cross or [name for name, part in parts.items() if part == "decoder"]
    if not decoder:
        found: FoundPairs = network(**images).found
        return found, None
    site = decoder[-1]
    with capture(network, where=lambda found: names[found.module] == site) as maps:
        found = network(**images).found
    weights = maps[site][0].mean(0).cpu()
    return found, Look(weights, _grid(weights, images["pixel_values"]) if cross else None, site)


def _grid(weights: Tensor, pixels: Any) -> tuple[int, int] | None:
    """Return rows and columns of a map of features from the number of its cells and the shape of the image."""
    cells = weights.shape[1]
    rows = round((cells * pixels.shape[-2] / pixels.shape[-1]) ** 0.5)
    return (rows, cells // rows) if rows and cells % rows == 0 else None
