"""Re-attention at a site: it mixes the attention maps of the heads, with parameters that the module holds."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dropkey.adapters import mixing
from dropkey.adapters.discover import Found
from dropkey.adapters.entry import Entry
from dropkey.adapters.forward_pass import Pass
from dropkey.adapters.slot import Slot
from dropkey.errors import ArgumentError, SiteError
from dropkey.ops.call import AttentionCall
from dropkey.ops.dispatch import attend
from dropkey.ops.mixed_attention import attend_mixed, refuses
from dropkey.ops.ordinary import is_plain
from dropkey.ops.reattention import HeadMixing
from dropkey.ops.statistics import counts_batches
from dropkey.ops.transforms import active_transform
from dropkey.regularizers import ReAttention

__all__ = ["MixSlot"]


class MixSlot(Slot):
    """Re-attention at one site: nothing is dropped, and it acts in evaluation too."""

    place = "mix"
    drops = False
    columns = ("norm", "gate")

    @property
    def norm(self) -> str:
        """What normalizes the mixed maps."""
        assert isinstance(self.regularizer, ReAttention)
        return self.regularizer.norm

    @classmethod
    def check_backend(cls, backend: str) -> None:
        """Raise an ArgumentError: which call mixes the maps is not the user's to choose."""
        if backend != "auto":
            raise ArgumentError(
                f"Re-attention has no backends: it needs the weights themselves, got backend={backend!r}"
            )

    @classmethod
    def check_applicable(cls, f: Found) -> None:
        """Raise a SiteError for a module that cannot take Re-attention's parameters."""
        mixing.check_mixable(f)

    def unfit(self, found: Sequence[Found]) -> list[str]:
        """Return those that are no plain self-attention."""
        return mixing.not_plain(found)

    def put_in(self, f: Found) -> None:
        """Give the module the parameters."""
        mixing.put_in(f, self.norm)

    def take_out(self, module: nn.Module) -> None:
        """Take the parameters out again."""
        mixing.take_out(module)

    def cells(self, module: nn.Module, entry: Entry, num_keys: int | None) -> list[str]:
        """Return the norm and the gate as it is now, unless a wrapper holds it elsewhere."""
        gate = getattr(mixing.mixer_of(module), "gate", None)
        return [self.norm, f"{gate.item():.3g}" if isinstance(gate, Tensor) and is_plain(gate) else "?"]

    def acts(self, training: bool) -> bool:
        """Say whether this slot changes a forward pass of a module in this mode."""
        return self.enabled

    def fuses(self, forward: Pass, call: AttentionCall, backend: str, label: str) -> bool:
        """Say whether one fused call can attend and mix, where nobody wants to see the maps."""
        return refuses(call, _mixer(forward, label), backend) is None

    def attend_fused(self, forward: Pass, call: AttentionCall, backend: str, label: str) -> tuple[Tensor, Tensor]:
        """Return the output of an attention call without Re-attention and with it."""
        mixer = _mixer(forward, label)
        assert isinstance(mixer, HeadMixing)
        with torch.no_grad():  # the fused call gives the gradients of both terms
            out = attend(call, backend)
        return out, attend_mixed(call, mixer, plain=out, backend=backend)

    def change(self, forward: Pass, call: AttentionCall, attn: Tensor, label: str) -> Tensor:
        """Return what Re-attention adds to the attention weights (B, H, Nq, Nk)."""
        mixer = _mixer(forward, label)
        if active_transform() and counts_batches(getattr(mixer, "norm", None)):
            raise SiteError(
                f"{label}: Re-attention's batch norm counts batches in place, which {active_transform()} cannot "
                'follow: set the mixing to eval(), or apply ReAttention(norm="layer")'
            )
        change = mixer(attn, call.allowed())
        assert isinstance(change, Tensor)
        return change

    def __str__(self) -> str:
        return f"re-attention: norm={self.norm}{self._state}"


def _mixer(forward: Pass, label: str) -> nn.Module:
    if forward.mixer is None or forward.num_calls > 1:
        raise SiteError(
            f"{label} has no plain self-attention, one softmax a forward pass "
            "in an adapter that knows Re-attention: choose other blocks for dropkey.ReAttention"
        )
    return forward.mixer
