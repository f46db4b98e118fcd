"""Dropout of attention weights at a site, torch's form or the renormalized one."""

from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from dropkey.adapters.eager import computes_softmax
from dropkey.adapters.entry import Entry
from dropkey.adapters.forward_pass import Pass, ratio_of_call
from dropkey.adapters.logits import per_map
from dropkey.adapters.slot import Slot
from dropkey.ops.call import AttentionCall
from dropkey.ops.dropout import attend_with_dropout, drop_weights
from dropkey.ops.transforms import check_randomness
from dropkey.patterns import Element, Geometry
from dropkey.regularizers import AttentionDropout
from dropkey.schedules import drawn_ratio

__all__ = ["DropoutSlot"]


class DropoutSlot(Slot):
    """Dropout of attention weights at one site."""

    place = "dropout"

    @property
    def renormalizes(self) -> bool:
        """Whether the weights that are left are divided by their sum, in place of by 1 - ratio."""
        assert isinstance(self.regularizer, AttentionDropout)
        return self.regularizer.renormalize

    def attend(self, forward: Pass, call: AttentionCall, geometry: Geometry) -> Tensor:
        """Run an attention call with some of its weights dropped."""
        check_randomness()
        return attend_with_dropout(call, self.drop_ratio, self._keep(forward, call.query, geometry))

    def drop(self, forward: Pass, attn: Tensor, geometry: Geometry, maps_per_mask: int) -> Tensor:
        """Return attention weights (B, maps, Nq, Nk), some of them dropped."""
        keep = self._keep(forward, attn, geometry)
        return drop_weights(attn, self.drop_ratio, None if keep is None else per_map(keep, maps_per_mask))

    def _keep(self, forward: Pass, attn: Tensor, geometry: Geometry) -> Tensor | None:
        """The mask of the renormalized form; None for torch's, which draws its own."""
        if not self.renormalizes:
            return None
        seed, ratio = forward.seed("dropout", attn.device), ratio_of_call(self.ratio_tensor, type(attn) is FakeTensor)
        return Element().keep(seed, ratio, geometry)

    def cells(self, module: nn.Module, entry: Entry, num_keys: int | None) -> list[str]:
        """Return the ratio, and whether torch's attention drops the weights or they are computed for it."""
        in_view = self.renormalizes or computes_softmax(module, entry)
        return [f"{drawn_ratio(self.drop_ratio):.4g}", "weights" if in_view else "sdpa"]

    def __str__(self) -> str:
        form = ", renormalized" if self.renormalizes else ""
        return f"attention dropout: drop_ratio={self.drop_ratio:.4g}{form}{self._state}"
