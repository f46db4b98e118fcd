"""Re-attention at a site: it mixes the attention maps of the heads, with parameters that the module holds."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dropkey.adapters import mixing
from dropkey.adapters.discover import Found
from dropkey.adapters.entry import Entry
from dropkey.adapters.plain_attention import not_plain
from dropkey.adapters.record import Record
from dropkey.adapters.site_call import Attended, SiteCall
from dropkey.adapters.slot import Slot
from dropkey.adapters.slots import reattention_proof
from dropkey.adapters.weight_dropout import WeightDropper
from dropkey.errors import ArgumentError, SiteError
from dropkey.ops.dispatch import attend
from dropkey.ops.layout_of_output import laid_out
from dropkey.ops.mixed_attention import attend_mixed, refuses
from dropkey.ops.ordinary import is_plain
from dropkey.ops.reattention import HeadMixing
from dropkey.ops.reference import weights
from dropkey.ops.statistics import counts_batches
from dropkey.ops.transforms import active_transform
from dropkey.regularizers import ReAttention

__all__ = ["ReAttentionSlot"]


class ReAttentionSlot(Slot):
    """Re-attention at one site: nothing is dropped, and it acts in evaluation too."""

    stage = "maps"
    acts_in_evaluation = True
    does = "mixed"
    columns = ("norm", "gate")
    regularizer: ReAttention

    @classmethod
    def check_backend(cls, backend: str) -> None:
        """Raise an ArgumentError: which call mixes the maps is not the user's to choose."""
        if backend != "auto":
            raise ArgumentError(
                f"ReAttention has no backends, it is fused wherever that is possible; got backend={backend!r}"
            )

    @classmethod
    def chosen(cls, found: Sequence[Found], regularizer: ReAttention) -> Sequence[Found]:
        """Return the modules of the blocks to mix."""
        return mixing.blocks_to_mix(found, regularizer)

    @classmethod
    def check_applicable(cls, f: Found) -> None:
        """Raise a SiteError for a module that cannot take Re-attention's parameters."""
        mixing.check_mixable(f)

    def unfit(self, found: Sequence[Found]) -> list[str]:
        """Return those that are no plain self-attention."""
        return not_plain(found)

    def put_in(self, f: Found) -> None:
        """Give the module the parameters."""
        mixing.put_in(f, self.regularizer.norm)

    def take_out(self, module: nn.Module) -> None:
        """Take the parameters out again."""
        mixing.take_out(module)

    def cells(self, module: nn.Module, entry: Entry, num_keys: int | None) -> list[str]:
        """Return the norm and the gate as it is now, unless a wrapper holds it elsewhere."""
        gate = getattr(mixing.mixer_of(module), "gate", None)
        return [self.regularizer.norm, f"{gate.item():.3g}" if isinstance(gate, Tensor) and is_plain(gate) else "?"]

    def attend(self, at: SiteCall, dropper: WeightDropper | None) -> Attended:
        """Run plain attention and add Re-attention's change: bit-identical to plain attention while the gate is 0.

        Args:
            at: the call.
            dropper: drops attention weights before they are mixed, if anything does.
        """
        mixer = _mixer(at)
        if dropper is None and not at.wants_maps and refuses(at.call, mixer, at.backend) is None:
            return self._attend_fused(at, mixer)
        # The weights of the call, after any drop.
        attn = weights(at.call, at.call.keep())
        dropped = attn if dropper is None else dropper.drop_weights(at, attn)
        value = at.call.expanded().value
        # Attention without Re-attention: by the backend where the weights are those that it has itself.
        if dropper is None and not active_transform():
            out = attend(at.call, at.backend)
        else:
            out = (dropped @ value.to(attn.dtype)).to(value.dtype)
        # What Re-attention adds.
        change = self.change(at, dropped)
        mixed = out + (change.to(attn.dtype) @ value.to(attn.dtype)).to(out.dtype)
        return Attended(out, laid_out(mixed, at.call.query), dropped, dropped + change if at.wants_maps else None)

    def _attend_fused(self, at: SiteCall, mixer: nn.Module) -> Attended:
        """Do the same in one call that computes no map."""
        assert isinstance(mixer, HeadMixing)
        with torch.no_grad():  # the fused call gives the gradients of both terms
            out = attend(at.call, at.backend)
        mixed = attend_mixed(at.call, mixer, plain=out, backend=at.backend)
        return Attended(out, laid_out(mixed, at.call.query))

    def change(self, at: SiteCall, attn: Tensor) -> Tensor:
        """Return what Re-attention adds to the attention weights (B, H, Nq, Nk)."""
        mixer = _mixer(at)
        if active_transform() and counts_batches(getattr(mixer, "norm", None)):
            raise SiteError(
                f"{at.label}: Re-attention's batch norm counts batches in place, which {active_transform()} cannot "
                'follow: set the mixing to eval(), or apply ReAttention(norm="layer")'
            )
        change: Tensor = mixer(attn, at.call.allowed())
        return change

    def noted(self, module: nn.Module) -> reattention_proof.Mixer:
        """Return the parameters and statistics: a batch norm changes its own while it runs."""
        return reattention_proof.copied(module)

    def check(self, name: str, records: Sequence[Record], noted: reattention_proof.Mixer) -> reattention_proof.MixCheck:
        """See ``Slot.check`` and ``reattention_proof.py``."""
        return reattention_proof.check(name, noted, records)

    def __str__(self) -> str:
        return f"re-attention: norm={self.regularizer.norm}{self.state}"


def _mixer(at: SiteCall) -> nn.Module:
    mixer = mixing.mixer_of(at.forward_pass.module)
    if mixer is None or at.forward_pass.num_calls > 1:
        raise SiteError(
            f"{at.label} has no plain self-attention, one softmax a forward pass "
            "in an adapter that knows Re-attention: choose other blocks for dropkey.ReAttention"
        )
    return mixer
