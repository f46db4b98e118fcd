"""Dropout of attention weights at a site, torch's form or the renormalized one."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from dropkey.adapters.eager import computes_softmax
from dropkey.adapters.entry import Entry
from dropkey.adapters.forward_pass import ratio_of_call
from dropkey.adapters.logits import per_map
from dropkey.adapters.record import Record
from dropkey.adapters.site_call import SiteCall
from dropkey.adapters.slots import dropout_proof
from dropkey.adapters.slots.drop_check import DropCheck
from dropkey.adapters.slots.drop_slot import DropSlot
from dropkey.errors import ArgumentError
from dropkey.ops.dropout import attend_with_dropout, drop_weights
from dropkey.ops.transforms import check_randomness
from dropkey.patterns import Element
from dropkey.regularizers import AttentionDropout
from dropkey.schedules import drawn_ratio

__all__ = ["DropoutSlot"]


class DropoutSlot(DropSlot):
    """Dropout of attention weights at one site."""

    stage = "weights"
    regularizer: AttentionDropout

    @property
    def renormalizes(self) -> bool:
        """Whether the weights that are left are divided by their sum, in place of by 1 - ratio."""
        return self.regularizer.renormalize

    @classmethod
    def check_backend(cls, backend: str) -> None:
        """Raise an ArgumentError: torch's attention drops the weights, or they are computed for it."""
        if backend != "auto":
            raise ArgumentError(f"AttentionDropout has no backends, it runs on torch's own; got backend={backend!r}")

    def attend(self, at: SiteCall) -> Tensor:
        """Run an attention call with some of its weights dropped."""
        check_randomness()
        return attend_with_dropout(at.call, self.drop_ratio, self._keep(at))

    def drop_weights(self, at: SiteCall, attn: Tensor) -> Tensor:
        """Return attention weights (B, maps, Nq, Nk), some of them dropped."""
        keep = self._keep(at)
        return drop_weights(attn, self.drop_ratio, None if keep is None else per_map(keep, at.maps_per_mask))

    def _keep(self, at: SiteCall) -> Tensor | None:
        """The mask of the renormalized form; None for torch's, which draws its own."""
        if not self.renormalizes:
            return None
        seed = at.forward_pass.seed("dropout", at.call.query.device)
        ratio = ratio_of_call(self.ratio_tensor, type(at.call.query) is FakeTensor)
        return Element().keep(seed, ratio, at.geometry)

    def cells(self, module: nn.Module, entry: Entry, num_keys: int | None) -> list[str]:
        """Return the ratio, and whether torch's attention drops the weights or they are computed for it."""
        in_view = self.renormalizes or computes_softmax(module, entry)
        return [f"{drawn_ratio(self.drop_ratio):.4g}", "weights" if in_view else "sdpa"]

    def check(self, name: str, records: Sequence[Record], noted: None) -> DropCheck:
        """See ``Slot.check`` and ``dropout_proof.py``."""
        return dropout_proof.check(name, self, records)

    def __str__(self) -> str:
        form = ", renormalized" if self.renormalizes else ""
        return f"attention dropout: drop_ratio={self.drop_ratio:.4g}{form}{self.state}"
