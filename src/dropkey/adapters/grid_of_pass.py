"""The patch grid of a forward pass, as the input of this very pass has it: what windows and the like are drawn on."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from dropkey.adapters.discover import attention_modules
from dropkey.adapters.geometry import around_of, geometry_of, pair
from dropkey.adapters.record import Record
from dropkey.adapters.site import Site
from dropkey.errors import SiteError

__all__ = ["check_grid", "grids_of_pass"]

Grid = tuple[int, int]


@contextlib.contextmanager
def grids_of_pass(model: nn.Module) -> Iterator[dict[nn.Module, Grid]]:
    """Watch a forward pass of the model; fill a dict with the patch grid that each attention module has then.

    Known are models that embed patches in a ``patch_embed`` (timm and what is built like it), and what models say of
    themselves; windows are their own grid.
    """
    grids: dict[nn.Module, Grid] = {}
    hooks = []
    for found in attention_modules(model):
        if found.entry.grid is not None or found.entry.kind == "window":
            continue
        around = [found.module, *around_of(model, found.name)]
        said = geometry_of(around)[0]
        if said is not None:
            grids[found.module] = said
        embeds = (getattr(module, "patch_embed", None) for module in around)
        embed = next((each for each in embeds if isinstance(each, nn.Module)), None)
        if embed is not None:
            hooks.append(embed.register_forward_pre_hook(partial(_note, grids, found.module)))
    try:
        yield grids
    finally:
        for hook in hooks:
            hook.remove()


def check_grid(site: Site, records: Sequence[Record], grid: Grid | None) -> None:
    """Raise a SiteError if a pattern was drawn on another grid than that of the pass."""
    for record in records:
        draw = record.call.draw
        if grid is None or draw is None or not draw.pattern.needs_grid or draw.grid_size is None:
            continue
        drawn = draw.grid_size
        if drawn != grid and drawn[0] * drawn[1] == grid[0] * grid[1]:
            raise SiteError(
                f"{site.label} draws windows on {drawn[0]} x {drawn[1]} patches, but this input has {grid[0]} x "
                f"{grid[1]}: remove the handle and apply again for inputs of this shape, with grid_size"
            )


def _note(grids: dict[nn.Module, Grid], attention: nn.Module, embed: nn.Module, inputs: tuple[Any, ...]) -> None:
    images = inputs[0] if inputs else None
    if not isinstance(images, Tensor) or images.dim() != 4:
        return
    height, width = int(images.shape[-2]), int(images.shape[-1])
    feature_size: Any = getattr(embed, "dynamic_feat_size", None)
    patch = pair(getattr(embed, "patch_size", None))
    if callable(feature_size):
        grids[attention] = pair(feature_size((height, width))) or grids[attention]
    elif patch is not None:
        grids[attention] = height // patch[0], width // patch[1]
