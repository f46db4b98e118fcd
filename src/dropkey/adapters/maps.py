"""The attention maps of a forward pass, with their gradients, also where a fused kernel computes no map."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from dropkey.adapters.listeners import listening
from dropkey.adapters.mixing import mixer_of
from dropkey.adapters.record import Record
from dropkey.adapters.site import Site, site_of
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
        model: to which any regularizer was applied; ratio 0 will do.

    Yields:
        A list that is empty, and holds the maps (B, H, Nq, Nk) in the order of the model once the block has ended.

    Raises:
        SiteError: no such site, one that did not run once, or maps of different shapes.
    """
    sites = [(module, site) for module in model.modules() if (site := site_of(module)) and _is_plain(site)]
    if not sites:
        raise SiteError(
            "attention maps are taken of plain self-attention to which a regularizer was applied, even of ratio 0: "
            f"this {type(model).__name__} has none"
        )
    listeners = [_Maps(site) for _, site in sites]
    maps: list[Tensor] = []
    with listening([(module, each) for (module, _), each in zip(sites, listeners, strict=True)]):
        hooks = [
            mixer.register_forward_hook(each.mixed)
            for (module, site), each in zip(sites, listeners, strict=True)
            if not site.slots.mixes and isinstance(mixer := mixer_of(module), HeadMixing)
        ]
        try:
            yield maps
            maps += [each.only() for each in listeners]
            _check_shapes(listeners, maps)
        finally:
            for hook in hooks:
                hook.remove()


class _Maps:
    """Hears the maps of one site."""

    always = True
    wants_maps = True

    def __init__(self, site: Site) -> None:
        self.site = site
        self.maps: list[Tensor] = []

    def heard(self, record: Record) -> None:
        """Keep the call's map."""
        assert record.attn_map is not None
        self.maps.append(record.attn_map)

    def mixed(self, mixer: nn.Module, args: Any, mixed: Tensor) -> None:
        """Take the map that a module has mixed itself in place of what it was mixed from: a hook of its mixer."""
        self.maps[-1:] = [mixed]

    def only(self) -> Tensor:
        """Return the map of a pass with one call."""
        if len(self.maps) != 1:
            raise SiteError(f"{self.site.name} has made {len(self.maps)} attention maps in a forward pass, not one")
        return self.maps[0]


def _is_plain(site: Site) -> bool:
    return site.entry.kind == "self" and site.entry.maps_per_head == 1


def _check_shapes(listeners: Sequence[_Maps], maps: Sequence[Tensor]) -> None:
    for (one, other), (first, second) in zip(itertools.pairwise(maps), itertools.pairwise(listeners), strict=True):
        if one.shape != other.shape:
            raise SiteError(
                f"{first.site.name} and {second.site.name} have attention maps of different shapes, "
                f"{tuple(one.shape)} and {tuple(other.shape)}: they cannot be compared"
            )
