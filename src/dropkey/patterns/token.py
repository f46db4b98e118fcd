"""A whole image loses the same keys, always equally many."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dropkey.patterns import bits
from dropkey.patterns.geometry import Geometry
from dropkey.patterns.pattern import Pattern

__all__ = ["Token"]


@dataclass(frozen=True)
class Token(Pattern):
    """Drop every (batch, key): all heads and queries lose the same keys, and always equally many.

    Exactly ``max(1, round((1 - drop_ratio) * num_keys))`` keys are kept, those with the highest 32-bit random rank
    (of equal ranks, the lower index), so that the kept keys of a batch form one rectangular tensor.
    """

    name: ClassVar[str] = "token"
    stream: ClassVar[int] = 2

    @staticmethod
    def num_kept(drop_ratio: float, num_keys: int) -> int:
        """Return how many of ``num_keys`` keys are kept."""
        return max(1, round((1 - drop_ratio) * num_keys))

    def keep(self, seed: Tensor, drop_ratio: Tensor, geometry: Geometry) -> Tensor:
        place = self._by_rank(seed, geometry).argsort(-1)
        # Elementwise arithmetic in float64, so that the count is the one num_kept gives without reading the tensor.
        num_kept = torch.round((1 - drop_ratio) * geometry.num_keys).clamp(min=1)
        return place < num_kept

    def kept_keys(self, seed: Tensor, drop_ratio: float, geometry: Geometry) -> Tensor:
        """Return the indices of the kept keys, int64 (B, num_kept), in the order of their ranks."""
        return self._by_rank(seed, geometry)[:, 0, 0, : self.num_kept(drop_ratio, geometry.num_keys)]

    def num_draws(self, geometry: Geometry) -> float:
        return geometry.batch * geometry.num_keys

    def share_tolerance(self, drop_ratio: float, geometry: Geometry) -> float:
        """One key: the count is exact, rounded to whole keys and at least one is kept."""
        return 1 / geometry.num_keys

    def true_ratio(self, drop_ratio: float, num_keys: int | None) -> str:
        if num_keys is None:
            return "rounded to whole keys"
        dropped = num_keys - self.num_kept(drop_ratio, num_keys)
        return f"{dropped} of {num_keys} keys: {dropped / num_keys:.4g}"

    def _by_rank(self, seed: Tensor, geometry: Geometry) -> Tensor:
        """Indices of all keys, highest rank first, (B, 1, 1, Nk)."""
        num_keys = geometry.num_keys
        first_heads = bits.heads(geometry, seed)[:, :1]
        ranks = bits.bits_32(seed, self.stream, num_keys, bits.one_query(seed), first_heads)
        ties = torch.arange(num_keys, 0, -1, device=seed.device)
        return (ranks * 2**31 + ties).argsort(-1, descending=True)
