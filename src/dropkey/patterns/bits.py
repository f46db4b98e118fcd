"""The layout of the random bits, the same for every backend.

A counter is (key block, query, batch * num_heads + head, stream) with unused coordinates 0. With 16 bits a key, key k
uses call k >> 3, word (k >> 1) & 3, half k & 1 (low half first); with 32 bits a key, call k >> 2, word k & 3.
"""

import torch
from torch import Tensor

from dropkey.patterns.geometry import Geometry
from dropkey.philox import Words, philox4x32

__all__ = ["all_queries", "bits_32", "dropped_16", "heads", "one_query"]


def all_queries(geometry: Geometry, seed: Tensor) -> Tensor:
    """The second coordinate where each query draws for itself, int64 (Nq, 1)."""
    return torch.arange(geometry.num_queries, device=seed.device)[:, None]


def one_query(seed: Tensor) -> Tensor:
    """The second coordinate where all queries share a draw, int64 (1, 1)."""
    return torch.zeros((1, 1), dtype=torch.int64, device=seed.device)


def heads(geometry: Geometry, seed: Tensor) -> Tensor:
    """The third coordinate, batch * num_heads + head, as int64 (B, H, 1, 1)."""
    heads = torch.arange(geometry.batch * geometry.num_heads, device=seed.device)
    return heads.view(geometry.batch, geometry.num_heads, 1, 1)


def dropped_16(seed: Tensor, stream: int, drop_ratio: Tensor, num_keys: int, queries: Tensor, heads: Tensor) -> Tensor:
    """Draw 16 bits a key and compare them with the ratio.

    Args:
        seed: int64 ().
        stream: of the pattern.
        drop_ratio: float64 ().
        num_keys: keys, or whatever is dropped as one.
        queries: int64 (Nq or 1, 1), see ``all_queries`` and ``one_query``.
        heads: int64 (B, H or 1, 1, 1), see ``heads``.

    Returns:
        bool (B, H or 1, Nq or 1, num_keys), True = dropped.
    """
    words = _words(seed, stream, -(-num_keys // 8), queries, heads)
    threshold = torch.round(drop_ratio * 65536).to(torch.int64)
    halves = [half < threshold for word in words for half in (word & 0xFFFF, word >> 16)]
    return torch.stack(halves, dim=-1).flatten(-2)[..., :num_keys]


def bits_32(seed: Tensor, stream: int, num_keys: int, queries: Tensor, heads: Tensor) -> Tensor:
    """Draw 32 bits a key, int64 (B, H or 1, Nq or 1, num_keys); arguments as for ``dropped_16``."""
    words = _words(seed, stream, -(-num_keys // 4), queries, heads)
    return torch.stack(words, dim=-1).flatten(-2)[..., :num_keys]


def _words(seed: Tensor, stream: int, num_calls: int, queries: Tensor, heads: Tensor) -> Words:
    """Draw words for ``num_calls`` key blocks x queries (Nq, 1) x heads (B, H, 1, 1)."""
    calls = torch.arange(num_calls, device=seed.device)
    return philox4x32((calls, queries, heads, torch.full_like(calls[:1], stream)), seed)
