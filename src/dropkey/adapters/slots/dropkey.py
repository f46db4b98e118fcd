"""DropKey at a site: it draws the keys of every attention call."""

import dataclasses

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from dropkey.adapters.eager import computes_softmax
from dropkey.adapters.entry import Entry
from dropkey.adapters.forward_pass import Pass, ratio_of_call
from dropkey.adapters.slot import Slot
from dropkey.ops.call import AttentionCall, Draw
from dropkey.ops.dispatch import select
from dropkey.patterns import Element, Geometry, Pattern, Token
from dropkey.regularizers import DropKey
from dropkey.schedules import drawn_ratio

__all__ = ["DropKeySlot"]


class DropKeySlot(Slot):
    """DropKey at one site."""

    place = "drop"

    @property
    def pattern(self) -> Pattern:
        """Which keys are dropped together."""
        assert isinstance(self.regularizer, DropKey)
        assert isinstance(self.regularizer.pattern, Pattern)
        return self.regularizer.pattern

    @property
    def drops_tokens(self) -> bool:
        """Whether all heads and queries of an image lose the same keys."""
        return isinstance(self.pattern, Token)

    def draw(self, forward: Pass, like: Tensor, geometry: Geometry) -> Draw:
        """Return what decides which keys one call loses: the ratio as it is now, and a seed of its own."""
        pattern, grid_size = self.pattern, geometry.grid_size
        held, threshold, is_fake = self.ratio_tensor, None, type(like) is FakeTensor
        if like.is_cuda and not is_fake:
            held = self.on_devices.on(like.device, self.ratio_tensor)
            threshold = self.on_devices.seed_threshold(like.device, self.ratio_tensor, pattern, grid_size)
        threshold = None if threshold is None else threshold.clone()
        seed, ratio = forward.seed("drop", like.device), ratio_of_call(held, is_fake)
        return Draw(pattern, ratio, seed, grid_size, geometry.num_prefix_tokens, threshold)

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
        return f"auto ({select(AttentionCall(tensor, tensor, tensor, None, False, 1.0, draw), 'auto').name})"

    def __str__(self) -> str:
        options = [f"{f.name}={getattr(self.pattern, f.name)}" for f in dataclasses.fields(self.pattern)]
        words = [f"drop_ratio={self.drop_ratio:.4g}", self.pattern.name, *options]
        return f"dropkey: {', '.join(words)}{self._state}"
