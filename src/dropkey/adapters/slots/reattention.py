"""Re-attention at a site: it mixes the attention maps of the heads, with parameters that the module holds."""

import torch
from torch import Tensor, nn

from dropkey.adapters.forward_pass import Pass
from dropkey.adapters.slot import Slot
from dropkey.errors import SiteError
from dropkey.ops.call import AttentionCall
from dropkey.ops.dispatch import attend
from dropkey.ops.mixed_attention import attend_mixed, refuses
from dropkey.ops.reattention import HeadMixing
from dropkey.ops.statistics import counts_batches
from dropkey.ops.transforms import active_transform
from dropkey.regularizers import ReAttention

__all__ = ["MIXER", "MixSlot", "mixer_of"]

MIXER = "reattention"  # name of the submodule that holds Re-attention's parameters in an attention module


class MixSlot(Slot):
    """Re-attention at one site: nothing is dropped, and it acts in evaluation too."""

    def acts(self, training: bool) -> bool:
        """Say whether this slot changes a forward pass of a module in this mode."""
        return self.enabled

    def fuses(self, forward: Pass, call: AttentionCall, backend: str, label: str) -> bool:
        """Say whether one fused call can attend and mix, where nobody wants to see the maps."""
        return backend in ("auto", "cpu") and refuses(call, _mixer(forward, label)) is None

    def attend_fused(self, forward: Pass, call: AttentionCall, backend: str, label: str) -> tuple[Tensor, Tensor]:
        """Return the output of an attention call without Re-attention and with it."""
        mixer = _mixer(forward, label)
        assert isinstance(mixer, HeadMixing)
        with torch.no_grad():  # the fused call gives the gradients of both terms
            out = attend(call, backend)
        return out, attend_mixed(call, mixer, plain=out)

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
        assert isinstance(self.regularizer, ReAttention)
        return f"re-attention: norm={self.regularizer.norm}{self._state}"


def mixer_of(module: nn.Module) -> nn.Module | None:
    """Return what a module mixes its attention maps with, if Re-attention was applied to it."""
    return module._modules.get(MIXER)


def _mixer(forward: Pass, label: str) -> nn.Module:
    if forward.mixer is None or forward.num_calls > 1:
        raise SiteError(
            f"{label} has no plain self-attention, one softmax a forward pass "
            "in an adapter that knows Re-attention: choose other blocks for dropkey.ReAttention"
        )
    return forward.mixer
