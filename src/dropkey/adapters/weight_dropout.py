"""Dropout of attention weights by whatever a call has: a slot of ours, or the module's own dropout."""

from typing import NamedTuple, Protocol

from torch import Tensor

from dropkey.adapters.site_call import SiteCall
from dropkey.ops.dropout import attend_with_dropout, drop_weights

__all__ = ["ModuleDropout", "WeightDropper"]


class WeightDropper(Protocol):
    """Drops attention weights after the softmax."""

    def attend(self, at: SiteCall) -> Tensor:
        """Run an attention call (B, H, Nq, Dv) with some of its weights dropped."""

    def drop_weights(self, at: SiteCall, attn: Tensor) -> Tensor:
        """Return attention weights (B, maps, Nq, Nk), some of them dropped."""


class ModuleDropout(NamedTuple):
    """The module's own dropout, which it passed to its attention call."""

    drop_ratio: float

    def attend(self, at: SiteCall) -> Tensor:
        """Run an attention call (B, H, Nq, Dv) with some of its weights dropped."""
        return attend_with_dropout(at.call, self.drop_ratio, None)

    def drop_weights(self, at: SiteCall, attn: Tensor) -> Tensor:
        """Return attention weights (B, maps, Nq, Nk), some of them dropped."""
        return drop_weights(attn, self.drop_ratio, None)
