"""The attention maps of a forward pass, with their gradients, also where a fused kernel computes no map."""

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from dropkey.adapters.site import Site, mixer_of, site_of
from dropkey.errors import SiteError
from dropkey.ops.reattention import HeadMixing

__all__ = ["attention_maps"]


@contextlib.contextmanager
def attention_maps(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the maps of every plain self-attention that is a site, for a loss on them.

    A map is what one forward pass in this block attends with: after the drop of keys, with the mask of that pass, and
    after Re-attention, also where it is the module's own (DeepViT's). Of a fused kernel it is computed again from query
    and key, without dropout of weights: time and memory are quadratic in the number of tokens.

    Args:
        model: to which any regulariser was applied; ratio 0 will do.

    Yields:
        A list that is empty, and holds the maps (B, H, Nq, Nk) in the order of the model once the block has ended.

    Raises:
        SiteError: no such site, one that did not run once, or maps of different shapes.
    """
    sites = [(module, site) for module in model.modules() if (site := site_of(module)) and _is_plain(site)]
    if not sites:
        raise SiteError(
            "attention maps are taken of plain self-attention to which a regulariser was applied, even of ratio 0: "
            f"this {type(model).__name__} has none"
        )
    hooks = []
    for module, site in sites:
        site.maps = []
        mixer = mixer_of(module)
        if site.mix is None and isinstance(mixer, HeadMixing):
            hooks.append(mixer.register_forward_hook(_Replace(site)))
    maps: list[Tensor] = []
    try:
        yield maps
        maps += [_only_map(site) for _, site in sites]
        _check_shapes(sites, maps)
    finally:
        for hook in hooks:
            hook.remove()
        for _, site in sites:
            site.maps = None


class _Replace:
    """Takes the map that a module has mixed itself in place of what it was mixed from."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def __call__(self, mixer: nn.Module, args: Any, mixed: Tensor) -> None:
        assert self.site.maps is not None
        self.site.maps[-1:] = [mixed]


def _is_plain(site: Site) -> bool:
    return site.entry.kind == "self" and site.entry.maps_per_head == 1


def _only_map(site: Site) -> Tensor:
    maps = site.maps or []
    if len(maps) != 1:
        raise SiteError(f"{site.name} has made {len(maps)} attention maps in a forward pass, not one")
    return maps[0]


def _check_shapes(sites: list[tuple[nn.Module, Site]], maps: list[Tensor]) -> None:
    for (one, other), ((_, first), (_, second)) in zip(
        itertools.pairwise(maps), itertools.pairwise(sites), strict=True
    ):
        if one.shape != other.shape:
            raise SiteError(
                f"{first.name} and {second.name} have attention maps of different shapes, {tuple(one.shape)} and "
                f"{tuple(other.shape)}: they cannot be compared"
            )
