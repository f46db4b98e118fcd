"""What an attention call of a site was given and returned, and who hears of it."""

from typing import NamedTuple, Protocol

from torch import Tensor

from dropkey.ops.call import AttentionCall

__all__ = ["Listener", "Record"]


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
