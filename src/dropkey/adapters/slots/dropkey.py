"""DropKey at a site: it draws the keys of every attention call."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from dropkey.adapters.discover import Found
from dropkey.adapters.eager import computes_softmax
from dropkey.adapters.entry import Entry
from dropkey.adapters.forward_pass import ForwardPass, ratio_of_call
from dropkey.adapters.record import Record
from dropkey.adapters.site_call import SiteCall
from dropkey.adapters.slots import dropkey_proof
from dropkey.adapters.slots.drop_check import DropCheck
from dropkey.adapters.slots.drop_slot import DropSlot
from dropkey.errors import ArgumentError, SiteError
from dropkey.ops.call import AttentionCall, Draw
from dropkey.ops.dispatch import select
from dropkey.ops.top_keys import top_keys
from dropkey.patterns import Element, Geometry, Pattern, Token
from dropkey.regularizers import DropKey
from dropkey.schedules import drawn_ratio

__all__ = ["DropKeySlot"]


class DropKeySlot(DropSlot):
    """DropKey at one site."""

    stage = "logits"
    samples = True
    regularizer: DropKey

    @property
    def pattern(self) -> Pattern:
        """Which keys are dropped together."""
        assert isinstance(self.regularizer.pattern, Pattern)
        return self.regularizer.pattern

    @property
    def needs_grid(self) -> bool:
        """Whether it must know how the patches lie."""
        return self.pattern.needs_grid

    @property
    def drops_tokens(self) -> bool:
        """Whether all heads and queries of an image lose the same keys."""
        return isinstance(self.pattern, Token)

    @classmethod
    def chosen(cls, found: Sequence[Found], regularizer: DropKey) -> Sequence[Found]:
        """Return all of them, or raise a SiteError where keys are chosen by their logits and maps share their keys."""
        odd = [f for f in found if f.entry.maps_per_head > 1]
        if regularizer.top_share < 1 and odd:
            raise SiteError(
                f"{odd[0].name} ({type(odd[0].module).__name__}) has {odd[0].entry.maps_per_head} maps a head, which "
                "lose the same keys: leave it out with where=, or leave out top_share"
            )
        return found

    def before(self, at: SiteCall) -> SiteCall:
        """Return the call with what decides which keys it loses: the ratio as it is now, and a seed of its own."""
        try:
            self.pattern.check(at.geometry)
        except ArgumentError as error:
            raise SiteError(
                f"{at.label}: {error}, or where tokens are left out or merged choose a pattern without a grid"
            ) from None
        is_fake = type(at.call.query) is FakeTensor
        draw = self.draw(at.forward_pass, at.geometry, at.call.query.device, is_fake)
        if self.regularizer.top_share < 1:
            draw = draw._replace(candidates=top_keys(at.call, self.regularizer.top_share))
        return at._replace(call=at.call._replace(draw=draw))

    def draw(self, forward_pass: ForwardPass, geometry: Geometry, device: torch.device, is_fake: bool = False) -> Draw:
        """Return the draw of one call."""
        pattern, held, threshold = self.pattern, self.ratio_tensor, None
        if device.type == "cuda" and not is_fake:
            held = self.on_devices.on(device, self.ratio_tensor)
            threshold = self.on_devices.seed_threshold(device, self.ratio_tensor, pattern, geometry.grid_size)
        threshold = None if threshold is None else threshold.clone()
        seed, ratio = forward_pass.seed("drop", device), ratio_of_call(held, is_fake)
        return Draw(pattern, ratio, seed, geometry.grid_size, geometry.num_prefix_tokens, threshold)

    def cells(self, module: nn.Module, entry: Entry, num_keys: int | None) -> list[str]:
        """Return the ratio, with what is left of it where whole keys are dropped, and the backend that will run."""
        return [self._ratio(num_keys), self._backend(module, entry)]

    def _ratio(self, num_keys: int | None) -> str:
        ratio = f"{drawn_ratio(self.drop_ratio):.4g}"
        true = self.pattern.true_ratio(self.drop_ratio, num_keys) if self.drop_ratio else None
        return f"{ratio} ({true})" if true else ratio

    def _backend(self, module: nn.Module, entry: Entry) -> str:
        if computes_softmax(module, entry):
            return "its own softmax"
        if self.backend != "auto":
            return self.backend
        parameter = next(module.parameters(), torch.empty(0))
        tensor = parameter.new_empty((1, 1, 2, 64))
        draw = Draw(Element(), self.ratio_tensor, torch.zeros((), dtype=torch.int64, device=tensor.device))
        if self.regularizer.top_share < 1:
            draw = draw._replace(candidates=tensor.new_ones((1, 1, 2, 2), dtype=torch.bool))
        return f"auto ({select(AttentionCall(tensor, tensor, tensor, None, False, 1.0, draw), 'auto').name})"

    def check(self, name: str, records: Sequence[Record], noted: None) -> DropCheck:
        """See ``Slot.check`` and ``dropkey_proof.py``."""
        return dropkey_proof.check(name, self, records)

    def __str__(self) -> str:
        options = [f"{f.name}={getattr(self.pattern, f.name)}" for f in dataclasses.fields(self.pattern)]
        top = self.regularizer.top_share
        words = [f"drop_ratio={self.drop_ratio:.4g}", self.pattern.name, *options]
        words += [f"top_share={top:.4g}"] if top < 1 else []
        return f"dropkey: {', '.join(words)}{self.state}"
