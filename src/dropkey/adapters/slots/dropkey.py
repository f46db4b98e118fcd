"""DropKey at a site: it draws the keys of every attention call."""

import dataclasses

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from dropkey.adapters.forward_pass import Pass, ratio_of_call
from dropkey.adapters.slot import Slot
from dropkey.ops.call import Draw
from dropkey.patterns import Geometry, Pattern, Token
from dropkey.regularizers import DropKey

__all__ = ["DropKeySlot"]


class DropKeySlot(Slot):
    """DropKey at one site."""

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
        held, threshold = self.ratio_tensor, None
        if like.is_cuda and type(like) is not FakeTensor:
            held = self.on_devices.on(like.device, self.ratio_tensor)
            threshold = self.on_devices.seed_threshold(like.device, self.ratio_tensor, pattern, grid_size)
        threshold = None if threshold is None else threshold.clone()
        seed, ratio = forward.seed("drop", like.device), ratio_of_call(held, like)
        return Draw(pattern, ratio, seed, grid_size, geometry.num_prefix_tokens, threshold)

    def __str__(self) -> str:
        options = [f"{f.name}={getattr(self.pattern, f.name)}" for f in dataclasses.fields(self.pattern)]
        words = [f"drop_ratio={self.drop_ratio:.4g}", self.pattern.name, *options]
        return f"dropkey: {', '.join(words)}{self._state}"
