"""Every query loses keys of its own: the paper's DropKey."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dropkey.patterns import bits
from dropkey.patterns.geometry import Geometry
from dropkey.patterns.pattern import Pattern

__all__ = ["Element"]


@dataclass(frozen=True)
class Element(Pattern):
    """Drop every (batch, head, query, key) by itself: the paper's DropKey, and the default."""

    name: ClassVar[str] = "element"
    stream: ClassVar[int] = 0

    def keep(self, seed: Tensor, drop_ratio: Tensor, geometry: Geometry) -> Tensor:
        queries, heads = bits.all_queries(geometry, seed), bits.heads(geometry, seed)
        return ~bits.dropped_16(seed, self.stream, drop_ratio, geometry.num_keys, queries, heads)

    def num_draws(self, geometry: Geometry) -> float:
        return geometry.batch * geometry.num_heads * geometry.num_queries * geometry.num_keys
