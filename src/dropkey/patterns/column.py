"""All queries of a head lose the same keys."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dropkey.patterns import bits
from dropkey.patterns.geometry import Geometry
from dropkey.patterns.pattern import Pattern

__all__ = ["Column"]


@dataclass(frozen=True)
class Column(Pattern):
    """Drop every (batch, head, key): all queries of a head lose the same keys."""

    name: ClassVar[str] = "column"
    stream: ClassVar[int] = 1

    def keep(self, seed: Tensor, drop_ratio: Tensor, geometry: Geometry) -> Tensor:
        queries, heads = bits.one_query(seed), bits.heads(geometry, seed)
        return ~bits.dropped_16(seed, self.stream, drop_ratio, geometry.num_keys, queries, heads)

    def num_draws(self, geometry: Geometry) -> float:
        return geometry.batch * geometry.num_heads * geometry.num_keys
