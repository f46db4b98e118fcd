"""The shape that a keep mask is drawn for."""

from typing import NamedTuple

__all__ = ["Geometry"]


class Geometry(NamedTuple):
    """The shape of one attention call, as far as a keep mask depends on it."""

    batch: int
    num_heads: int
    num_queries: int
    num_keys: int
    grid_size: tuple[int, int] | None = None  # (rows, cols) of the patch keys
    num_prefix_tokens: int = 0  # keys before the patch keys: class, register and distillation tokens
