"""Hearing the attention calls of a forward pass in which nothing acts: every function runs as the module calls it.

Outputs are the same, bit for bit, whoever listens: no call is made in another way, on other tensors, or anew.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dropkey.adapters.fast_path import passes_by, without_fast_path
from dropkey.adapters.forward_pass import ForwardPass
from dropkey.adapters.heads import num_heads_of
from dropkey.adapters.logits import call_of_logits
from dropkey.adapters.mixing import mixer_of
from dropkey.adapters.record import Record
from dropkey.adapters.routing import Routing
from dropkey.adapters.site import Site, site_of
from dropkey.errors import SiteError
from dropkey.ops.autocast import autocast_like_sdpa, is_autocasting
from dropkey.ops.reference import weights
from dropkey.ops.statistics import is_recomputing

__all__ = ["listens_to", "tapped"]


class Tap(Routing):
    """Tells a site's listeners of the attention calls made inside of one forward pass, after they have run."""

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: Any = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        out: Tensor = F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
        site = self.site
        with _gradients_for(site):
            layout = self._layout_of_query(query)
            if is_autocasting(query.device.type):
                query, key, value, attn_mask = autocast_like_sdpa(query, key, value, attn_mask)
            if layout == "bh":
                call = self._call(query, key, value, attn_mask, is_causal, scale, enable_gqa)
            else:
                call = self._folded_call(layout, query, key, value, attn_mask, is_causal, scale)
            attn_map = weights(call, None) if site.wants_maps else None
            heads = out if layout == "bh" else self._fold(out, layout)
            site.tell(Record(call, heads, drops=False, attn_map=attn_map))
        return out

    def _softmax(self, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        out = func(*args, **kwargs)
        found = self._logits_of(func, args, kwargs)
        if found is not None and not self._is_told_by_the_module():
            logits, layout = found
            with _gradients_for(self.site):
                attn = out if layout == "bh" else self._fold(out, layout)
                call = call_of_logits(self._fold(logits, layout))
                attn_map = attn if self.site.wants_maps else None
                maps = self.site.entry.maps_per_head
                self.site.tell(Record(call, attn, maps, drops=False, attn=attn, of_logits=True, attn_map=attn_map))
        return out

    def _is_told_by_the_module(self) -> bool:
        """Whether the module mixes its maps itself (DeepViT's), and tells of what it attends with."""
        module = self.forward_pass.module
        return hasattr(module, "mix_maps") and mixer_of(module) is not None and not self.site.wants_maps

    def _masked_fill(self, func: Callable[..., Tensor], tensor: Tensor, mask: Tensor, value: Any) -> Tensor:
        return func(tensor, mask, value)


def listens_to(site: Site) -> bool:
    """Say whether somebody hears a forward pass in which nothing acts; a recomputation of it is heard by nobody."""
    return site.is_heard and not is_recomputing()


def tapped(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Run the forward of a module whose site does not act, with its listeners told of every attention call."""
    site = site_of(module)
    assert site is not None
    if not passes_by(module):
        return _heard(module, site, *args, **kwargs)
    out = site.original_class.forward(module, *args, **kwargs)
    with without_fast_path(), torch.no_grad():
        _heard(module, site, *args, **kwargs)
    return out


def _heard(module: nn.Module, site: Site, *args: Any, **kwargs: Any) -> Any:
    before = site.num_told
    with Tap(site, ForwardPass(module), num_heads_of(module) or 1):
        out = site.original_class.forward(module, *args, **kwargs)
    if site.num_told == before:
        raise SiteError(
            f"{site.label} ran without calling scaled_dot_product_attention, so its attention cannot be seen: if its "
            "forward computes the softmax itself, register the class with softmax=True"
        )
    return out


def _gradients_for(site: Site) -> torch.set_grad_enabled:
    """What is computed for listeners alone is differentiated only if they want maps with gradients."""
    return torch.set_grad_enabled(torch.is_grad_enabled() and site.wants_maps)
