"""Which keys are dropped: Element, Column, Token, Block, Cross.

A pattern turns a seed and a drop ratio into a keep mask, True where a query may see a key. It is a pure function of the
seed and the position. The layout of the random bits, for every backend: a counter is (key block, query,
batch * num_heads + head, stream) with unused coordinates 0. With 16 bits a key, key k uses call k >> 3, word
(k >> 1) & 3, half k & 1 (low half first); with 32 bits a key, call k >> 2, word k & 3.
"""

import functools
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from dropkey.errors import ArgumentError, did_you_mean
from dropkey.philox import Words, philox4x32

__all__ = ["Block", "Column", "Cross", "Element", "Geometry", "Pattern", "Token", "named_pattern"]


class Geometry(NamedTuple):
    """The shape of one attention call, as far as a keep mask depends on it."""

    batch: int
    num_heads: int
    num_queries: int
    num_keys: int
    grid_size: tuple[int, int] | None = None  # (rows, cols) of the patch keys
    num_prefix_tokens: int = 0  # keys before the patch keys: class, register and distillation tokens


@dataclass(frozen=True)
class Pattern:
    """Base of the patterns: says which keys each query loses."""

    name: ClassVar[str]
    stream: ClassVar[int]

    def keep(self, seed: Tensor, drop_ratio: Tensor, geometry: Geometry) -> Tensor:
        """Draw a keep mask.

        Args:
            seed: int64 tensor of shape ().
            drop_ratio: float64 tensor of shape () with a value in [0, 1); on the CPU or on the seed's device.
            geometry: shape of the attention call.

        Returns:
            bool tensor on the seed's device, broadcastable to (B, H, Nq, Nk); True = the query sees the key.
        """
        raise NotImplementedError

    def check(self, geometry: Geometry) -> None:
        """Raise an ArgumentError if the pattern cannot be drawn for this geometry."""


@dataclass(frozen=True)
class Element(Pattern):
    """Drop every (batch, head, query, key) by itself: the paper's DropKey, and the default."""

    name: ClassVar[str] = "element"
    stream: ClassVar[int] = 0

    def keep(self, seed: Tensor, drop_ratio: Tensor, geometry: Geometry) -> Tensor:
        queries = torch.arange(geometry.num_queries, device=seed.device)[:, None]
        words = _words(seed, self.stream, _num_calls(geometry.num_keys, 8), queries, _heads(geometry, seed))
        return ~_below_16_bits(words, drop_ratio, geometry.num_keys)


@dataclass(frozen=True)
class Column(Pattern):
    """Drop every (batch, head, key): all queries of a head lose the same keys."""

    name: ClassVar[str] = "column"
    stream: ClassVar[int] = 1

    def keep(self, seed: Tensor, drop_ratio: Tensor, geometry: Geometry) -> Tensor:
        query = torch.zeros((1, 1), dtype=torch.int64, device=seed.device)
        words = _words(seed, self.stream, _num_calls(geometry.num_keys, 8), query, _heads(geometry, seed))
        return ~_below_16_bits(words, drop_ratio, geometry.num_keys)


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

    def _by_rank(self, seed: Tensor, geometry: Geometry) -> Tensor:
        """Indices of all keys, highest rank first, (B, 1, 1, Nk)."""
        num_keys = geometry.num_keys
        query = torch.zeros((1, 1), dtype=torch.int64, device=seed.device)
        first_heads = _heads(geometry, seed)[:, :1]
        ranks = _join(_words(seed, self.stream, _num_calls(num_keys, 4), query, first_heads))[..., :num_keys]
        ties = torch.arange(num_keys, 0, -1, device=seed.device)
        return (ranks * 2**31 + ties).argsort(-1, descending=True)


@dataclass(frozen=True)
class _Window(Pattern):
    """Drop whole windows around seed points on the patch grid, by itself for every (batch, head, query)."""

    window_size: int = 3

    def __post_init__(self) -> None:
        if not isinstance(self.window_size, int) or self.window_size < 1 or self.window_size % 2 == 0:
            raise ArgumentError(f"window_size must be an odd number of patches, 1 or more, got {self.window_size!r}")

    def check(self, geometry: Geometry) -> None:
        if geometry.grid_size is None:
            raise ArgumentError(f"pattern {self.name!r} needs grid_size=(rows, cols), the shape of the patch grid")
        rows, cols = geometry.grid_size
        if rows < 1 or cols < 1 or rows * cols + geometry.num_prefix_tokens != geometry.num_keys:
            raise ArgumentError(
                f"grid_size {rows} x {cols} and {geometry.num_prefix_tokens} prefix tokens do not make "
                f"{geometry.num_keys} keys: pass the grid_size and num_prefix_tokens of this input"
            )

    def seed_threshold(self, drop_ratio: Tensor, grid_size: tuple[int, int]) -> Tensor:
        """Return what 32 random bits of a patch are compared with, int64 (), on the CPU; see ``seed_probability``."""
        threshold: Tensor = torch.ops.dropkey.seed_threshold(
            drop_ratio, *grid_size, self.window_size, self.name == "cross"
        )
        return threshold

    def keep(
        self, seed: Tensor, drop_ratio: Tensor, geometry: Geometry, seed_threshold: Tensor | None = None
    ) -> Tensor:
        assert geometry.grid_size is not None  # check() has seen to it
        rows, cols = geometry.grid_size
        queries = torch.arange(geometry.num_queries, device=seed.device)[:, None]
        words = _words(seed, self.stream, _num_calls(rows * cols, 4), queries, _heads(geometry, seed))
        threshold = self.seed_threshold(drop_ratio, (rows, cols)) if seed_threshold is None else seed_threshold
        seeds = _join(words)[..., : rows * cols] < threshold
        seeds = seeds.view(*seeds.shape[:-1], rows, cols)
        keep_patches = ~self._spread(seeds).flatten(-2)
        if not geometry.num_prefix_tokens:
            return keep_patches
        # Prefix tokens have no place on the grid: they are drawn as by Element, from Element's own stream.
        prefix = geometry._replace(num_keys=geometry.num_prefix_tokens)
        return torch.cat([Element().keep(seed, drop_ratio, prefix), keep_patches], dim=-1)

    def _spread(self, seeds: Tensor) -> Tensor:
        """Grow every seed of (..., rows, cols) to its window."""
        raise NotImplementedError


@dataclass(frozen=True)
class Block(_Window):
    """Drop squares of ``window_size`` x ``window_size`` patches around seed points: the paper's DropKey-Block.

    The seed probability is chosen so that the share of dropped patches, averaged over the grid, is the drop ratio.
    Patches near the border lie in fewer windows and are dropped less often than those in the middle. Keys that are no
    patches (prefix tokens) are drawn as by ``Element``.
    """

    name: ClassVar[str] = "block"
    stream: ClassVar[int] = 3

    def _spread(self, seeds: Tensor) -> Tensor:
        return _smear(_smear(seeds, self.window_size, -1), self.window_size, -2)


@dataclass(frozen=True)
class Cross(_Window):
    """Drop crosses around seed points, a row and a column arm of ``window_size`` patches: the paper's DropKey-Cross.

    A cross has ``2 * window_size - 1`` patches. Seed probability, border and prefix tokens as for ``Block``.
    """

    name: ClassVar[str] = "cross"
    stream: ClassVar[int] = 4

    def _spread(self, seeds: Tensor) -> Tensor:
        return _smear(seeds, self.window_size, -1) | _smear(seeds, self.window_size, -2)


PATTERNS: dict[str, type[Pattern]] = {cls.name: cls for cls in (Element, Column, Token, Block, Cross)}


def named_pattern(pattern: str | Pattern) -> Pattern:
    """Return the pattern given by name (with its default window) or as an object; raise ArgumentError otherwise."""
    if isinstance(pattern, Pattern):
        return pattern
    if pattern not in PATTERNS:
        hint = did_you_mean(str(pattern), PATTERNS)
        raise ArgumentError(f"unknown pattern {pattern!r}{hint}; known: {', '.join(PATTERNS)}")
    return PATTERNS[pattern]()


@functools.lru_cache(maxsize=1024)
def seed_probability(drop_ratio: float, grid_size: tuple[int, int], window_size: int, is_cross: bool) -> float:
    """Return the probability of a seed point that drops ``drop_ratio`` of the patches, averaged over the grid.

    A patch is kept when none of the n cells of its own (clipped) window is a seed: with probability (1 - p) ** n. The
    mean over the grid falls with p, so bisection finds p, to the last bit of a float.
    """
    reach = window_size // 2
    rows, cols = (_clipped(size, reach) for size in grid_size)
    cells = [r + c - 1 if is_cross else r * c for r in rows for c in cols]
    counts = {n: cells.count(n) for n in set(cells)}
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        kept = sum(count * (1 - middle) ** n for n, count in counts.items()) / len(cells)
        low, high = (low, middle) if 1 - kept > drop_ratio else (middle, high)
    return (low + high) / 2


@torch.library.custom_op("dropkey::seed_threshold", mutates_args=())
def _seed_threshold(drop_ratio: Tensor, rows: int, cols: int, window_size: int, is_cross: bool) -> Tensor:
    """Seed probability as a 32-bit threshold; an operator of its own so that a compiled graph can change the ratio."""
    probability = seed_probability(float(drop_ratio), (rows, cols), window_size, is_cross)
    return torch.tensor(round(probability * 2**32), dtype=torch.int64, device="cpu")


@_seed_threshold.register_fake
def _(drop_ratio: Tensor, rows: int, cols: int, window_size: int, is_cross: bool) -> Tensor:
    return torch.empty((), dtype=torch.int64, device="cpu")


def _clipped(size: int, reach: int) -> list[int]:
    """Width of the window around each place of a line of ``size`` places."""
    return [min(place + reach, size - 1) - max(place - reach, 0) + 1 for place in range(size)]


def _num_calls(num_keys: int, keys_per_call: int) -> int:
    return -(-num_keys // keys_per_call)


def _heads(geometry: Geometry, seed: Tensor) -> Tensor:
    """The third coordinate, batch * num_heads + head, as int64 (B, H, 1, 1)."""
    heads = torch.arange(geometry.batch * geometry.num_heads, device=seed.device)
    return heads.view(geometry.batch, geometry.num_heads, 1, 1)


def _words(seed: Tensor, stream: int, num_calls: int, queries: Tensor, heads: Tensor) -> Words:
    """Draw words for ``num_calls`` key blocks x queries (Nq, 1) x heads (B, H, 1, 1)."""
    calls = torch.arange(num_calls, device=seed.device)
    return philox4x32((calls, queries, heads, torch.full_like(calls[:1], stream)), seed)


def _join(words: Words) -> Tensor:
    """Lay the words of one call side by side: four (..., calls) -> (..., 4 * calls)."""
    return torch.stack(words, dim=-1).flatten(-2)


def _below_16_bits(words: Words, drop_ratio: Tensor, num_keys: int) -> Tensor:
    """Compare 16 random bits a key against the ratio: four (..., calls) -> bool (..., num_keys)."""
    threshold = torch.round(drop_ratio * 65536).to(torch.int64)
    halves = [half < threshold for word in words for half in (word & 0xFFFF, word >> 16)]
    return torch.stack(halves, dim=-1).flatten(-2)[..., :num_keys]


def _smear(cells: Tensor, window_size: int, dim: int) -> Tensor:
    """Or every cell with its ``window_size // 2`` neighbours on both sides along ``dim``."""
    size = cells.shape[dim]
    out = cells.clone()
    for shift in range(1, min(window_size // 2, size - 1) + 1):
        length = size - shift
        out.narrow(dim, shift, length).logical_or_(cells.narrow(dim, 0, length))
        out.narrow(dim, 0, length).logical_or_(cells.narrow(dim, shift, length))
    return out
