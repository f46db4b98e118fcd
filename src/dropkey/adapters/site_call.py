"""One attention call of a site, as the slots of the site receive it, and what came out of it."""

from typing import NamedTuple

from torch import Tensor

from dropkey.adapters.forward_pass import ForwardPass
from dropkey.ops.call import AttentionCall
from dropkey.patterns import Geometry

__all__ = ["Attended", "SiteCall"]


class SiteCall(NamedTuple):
    """One attention call of a site.

    Where a library computes the softmax itself, ``call`` has its logits as bias and the identity as values.
    """

    forward_pass: ForwardPass
    call: AttentionCall
    geometry: Geometry  # of one mask: maps of the same heads share it
    maps_per_mask: int  # softmax maps, next to each other on the head axis, that share one mask
    label: str  # what messages call the site
    backend: str
    wants_maps: bool  # a listener wants whole maps, which fast paths do not compute
    given: AttentionCall  # the call as the module made it, before any slot
    of_logits: bool  # the library computes the softmax itself


class Attended(NamedTuple):
    """What an attention call gave."""

    out: Tensor  # before Re-attention
    mixed: Tensor | None = None  # after it
    attn: Tensor | None = None  # weights that Re-attention mixed, after any drop, where they were computed
    attn_map: Tensor | None = None  # weights after everything, where they were computed
