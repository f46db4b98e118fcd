"""What an attention call of a site was given and returned, and who hears of it."""

from typing import NamedTuple, Protocol

from torch import Tensor

from dropkey.adapters.site_call import Attended, SiteCall
from dropkey.ops.call import AttentionCall
from dropkey.ops.reference import weights

__all__ = ["Listener", "Record", "record_of"]


class Record(NamedTuple):
    """What one attention call of a site was given and what it returned."""

    call: AttentionCall
    out: Tensor  # before Re-attention
    maps_per_mask: int = 1  # softmax maps, next to each other on the head axis, that share one mask
    shares_mask: bool = False  # with the other calls of the same forward pass
    drops: bool = True  # whether a regularizer dropped keys or weights, at whatever ratio
    attn: Tensor | None = None  # weights that Re-attention mixed, after any drop
    mixed: Tensor | None = None  # what the site returned, if Re-attention acted
    module_out: Tensor | None = None  # of a module whose dropped keys were never computed,
    module_masked: Tensor | None = None  # and what it returns when they are masked instead
    of_logits: bool = False  # the library has computed the softmax itself: the values are not known
    given: AttentionCall | None = None  # the call as the module made it; None where its keys were never computed
    attn_map: Tensor | None = None  # (B, H, Nq, Nk) after drop and Re-attention, with gradients, if a listener wants it


class Listener(Protocol):
    """Hears every attention call of the sites that it listens to; any number of listeners hear the same record.

    Attributes:
        always: hear a forward pass in which no regularizer acts, too.
        wants_maps: have whole maps with gradients in the records: no fast path that computes none is taken meanwhile.
    """

    always: bool
    wants_maps: bool

    def heard(self, record: Record) -> None:
        """Take the record of a call that has just returned."""


def record_of(at: SiteCall, attended: Attended, drops: bool, shares_mask: bool) -> Record:
    """Return the record of a call that a site has made; weights that somebody wants and no step computed are computed.

    Args:
        at: the call, as its slots left it.
        attended: what it gave.
        drops: whether a slot that acted drops keys or weights.
        shares_mask: with the other calls of the same forward pass.
    """
    attn, attn_map = attended.attn, attended.attn_map
    if attended.mixed is not None and attn is None:
        attn = weights(at.call, at.call.keep())
    if attn_map is None and at.wants_maps:
        attn_map = weights(at.call, at.call.keep())
    return Record(
        at.call,
        attended.out,
        at.maps_per_mask,
        shares_mask,
        drops,
        attn,
        attended.mixed,
        of_logits=at.of_logits,
        given=at.given,
        attn_map=attn_map,
    )
