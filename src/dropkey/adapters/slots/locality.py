"""Locality self-attention at a site: a temperature that the module holds, and a hidden diagonal."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dropkey.adapters import added_parameters
from dropkey.adapters.discover import Found
from dropkey.adapters.entry import Entry
from dropkey.adapters.plain_attention import not_plain, plain_ones
from dropkey.adapters.record import Record
from dropkey.adapters.site_call import SiteCall
from dropkey.adapters.slot import Slot
from dropkey.adapters.slots import locality_proof
from dropkey.errors import SiteError
from dropkey.ops.locality import Temperature, without_diagonal
from dropkey.ops.ordinary import is_plain
from dropkey.regularizers import LocalityAttention

__all__ = ["LocalitySlot"]

_TEMPERATURE = "locality"  # name of the submodule that holds the temperature in an attention module


class LocalitySlot(Slot):
    """Locality self-attention at one site: nothing is dropped, and it acts in evaluation too."""

    stage = "logits"
    acts_in_evaluation = True
    does = "changed"
    columns = ("logits times", "diagonal")
    regularizer: LocalityAttention

    @classmethod
    def chosen(cls, found: Sequence[Found], regularizer: LocalityAttention) -> Sequence[Found]:
        """Return the modules with plain self-attention."""
        return plain_ones(found, "Locality self-attention")

    @classmethod
    def check_applicable(cls, f: Found) -> None:
        """Raise a SiteError for a module that cannot take the temperature."""
        added_parameters.check_room(f, _TEMPERATURE, "locality self-attention")

    def unfit(self, found: Sequence[Found]) -> list[str]:
        """Return those that are no plain self-attention."""
        return not_plain(found)

    def put_in(self, f: Found) -> None:
        """Give the module the temperature."""
        added_parameters.put_in(f, _TEMPERATURE, Temperature)

    def take_out(self, module: nn.Module) -> None:
        """Take the temperature out again."""
        added_parameters.take_out(module, _TEMPERATURE)

    def before(self, at: SiteCall) -> SiteCall:
        """Return the call with its logits times the temperature, and without its diagonal.

        Where a library computes the softmax itself, its biases are among the logits and scaled with them.
        """
        call, num_tokens = at.call, at.call.key.shape[2]
        if call.query.shape[2] != num_tokens:
            raise SiteError(
                f"{at.label} attends with {call.query.shape[2]} queries to {num_tokens} keys, which is no "
                "self-attention: leave it out with where="
            )
        temperature: Any = at.forward_pass.module._modules[_TEMPERATURE]
        if at.of_logits:
            logits, allowed = call.attn_bias, call.allowed()
            assert logits is not None
            assert allowed is not None
            call = call._replace(attn_bias=torch.where(allowed, temperature(logits), logits))
        else:
            call = call._replace(query=temperature(call.query))
        return at._replace(call=without_diagonal(call) if self.regularizer.mask_diagonal else call)

    def cells(self, module: nn.Module, entry: Entry, num_keys: int | None) -> list[str]:
        """Return the factors of the heads, unless a wrapper holds them elsewhere, and what is seen of the diagonal."""
        gain = getattr(module._modules.get(_TEMPERATURE), "gain", None)
        known = isinstance(gain, Tensor) and is_plain(gain)
        factors = f"{gain.min().item():.3g} to {gain.max().item():.3g}" if known and gain is not None else "?"
        return [factors, "hidden" if self.regularizer.mask_diagonal else "seen"]

    def noted(self, module: nn.Module) -> locality_proof.Noted:
        """Return the factors as they are, and whether the module may drop weights by itself."""
        temperature: Any = module._modules.get(_TEMPERATURE)
        if temperature is None:
            raise SiteError(f"the temperature of locality self-attention is gone from a {type(module).__name__}")
        return locality_proof.Noted(temperature.gain.detach().double().clone(), module.training)

    def check(self, name: str, records: Sequence[Record], noted: locality_proof.Noted) -> locality_proof.LocalityCheck:
        """See ``Slot.check`` and ``locality_proof.py``."""
        return locality_proof.check(name, noted, self.regularizer.mask_diagonal, records)

    def __str__(self) -> str:
        mask = "" if self.regularizer.mask_diagonal else ", temperature alone"
        return f"locality self-attention{mask}{self.state}"
