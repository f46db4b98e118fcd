"""The patch grid of a forward pass, as the input of this very pass has it: what windows and the like are drawn on."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from dropkey.adapters.discover import Found, attention_modules
from dropkey.adapters.geometry import around_of, embedding_of, geometry_of, grid_of_images, pair
from dropkey.adapters.record import Record
from dropkey.adapters.site import Site, site_of
from dropkey.errors import SiteError

__all__ = ["check_grid", "follow_grids", "grids_of_pass"]

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
        around = _around_patches(model, found)
        said = geometry_of(around)[0]
        if said is not None:
            grids[found.module] = said
        embedding = embedding_of(around)
        if embedding is not None:
            hooks.append(embedding.register_forward_pre_hook(partial(_note, grids, found.module)))
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


def follow_grids(model: nn.Module) -> None:
    """Let the sites whose patterns need a grid have that of each pass, and no others: after apply and remove."""
    for module in model.modules():
        hooks = module._forward_pre_hooks
        for key in [key for key, hook in hooks.items() if isinstance(hook, _Following)]:
            del hooks[key]
    sites: dict[nn.Module, list[Site]] = {}
    for found in attention_modules(model):
        site, embedding = site_of(found.module), embedding_of(_around_patches(model, found))
        if site is not None and embedding is not None and _follows(site, found, embedding):
            sites.setdefault(embedding, []).append(site)
    for embedding, its_sites in sites.items():
        embedding.register_forward_pre_hook(_Following(its_sites))


class _Following:
    """A hook of a patch embedding: tells sites the grid of the images that come in. It is copied with its model."""

    def __init__(self, sites: list[Site]) -> None:
        self.sites = sites

    def __call__(self, embedding: nn.Module, inputs: tuple[Any, ...]) -> None:
        grid = grid_of_images(embedding, inputs[0] if inputs else None)
        if grid is not None:
            for site in self.sites:
                site.grid_size = grid


def _follows(site: Site, found: Found, embedding: nn.Module) -> bool:
    """Say whether a site draws on the grid that this embedding makes, as far as the embedding itself says so."""
    if site.grid_is_given or found.grid_size is None or not any(slot.needs_grid for slot in site.slots):
        return False
    size = pair(getattr(embedding, "img_size", getattr(embedding, "image_size", None)))
    return size is None or grid_of_images(embedding, torch.empty(1, 0, *size)) == found.grid_size


def _around_patches(model: nn.Module, found: Found) -> list[nn.Module]:
    """Return an attention module and those around it; none if its keys are not the patches of an image."""
    own_grid = found.entry.grid is not None or found.entry.kind == "window"
    return [] if own_grid else [found.module, *around_of(model, found.name)]


def _note(grids: dict[nn.Module, Grid], attention: nn.Module, embedding: nn.Module, inputs: tuple[Any, ...]) -> None:
    grid = grid_of_images(embedding, inputs[0] if inputs else None)
    if grid is not None:
        grids[attention] = grid
