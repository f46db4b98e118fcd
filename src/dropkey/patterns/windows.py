"""Windows around seed points on the patch grid: the paper's DropKey-Block and DropKey-Cross."""

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dropkey.arguments import check_count
from dropkey.errors import ArgumentError
from dropkey.patterns import bits
from dropkey.patterns.geometry import Geometry
from dropkey.patterns.grid import GridPattern

__all__ = ["Block", "Cross", "seed_probability"]


@dataclass(frozen=True)
class _Window(GridPattern):
    """Drop whole windows around seed points on the patch grid, by itself for every (batch, head, query)."""

    has_seed_threshold: ClassVar[bool] = True

    window_size: int = 3

    def __post_init__(self) -> None:
        size = check_count("window_size", self.window_size, 1)
        if size % 2 == 0:
            raise ArgumentError(f"window_size must be an odd number of patches, got {size}")
        object.__setattr__(self, "window_size", size)

    @property
    def num_cells(self) -> int:
        """Patches of a window that no border clips."""
        raise NotImplementedError

    def seed_threshold(self, drop_ratio: Tensor, grid_size: tuple[int, int]) -> Tensor:
        """Return what 32 random bits of a patch are compared with, int64 (), on the CPU; see ``seed_probability``."""
        threshold: Tensor = torch.ops.dropkey.seed_threshold(
            drop_ratio, *grid_size, self.window_size, self.name == "cross"
        )
        return threshold

    def keep_patches(self, seed: Tensor, drop_ratio: Tensor, geometry: Geometry) -> Tensor:
        assert geometry.grid_size is not None  # check() has seen to it
        return self._outside_windows(self.seed_threshold(drop_ratio, geometry.grid_size), seed, geometry)

    def keep_below(self, seed_threshold: Tensor, seed: Tensor, drop_ratio: Tensor, geometry: Geometry) -> Tensor:
        patches = self._outside_windows(seed_threshold, seed, geometry)
        return self._after_prefix(patches, seed, drop_ratio, geometry)

    def num_draws(self, geometry: Geometry) -> float:
        """The patches of a window count as one, and a grid that is smaller than a window as one too."""
        num_masks = geometry.batch * geometry.num_heads * geometry.num_queries
        return num_masks * max(1.0, geometry.num_keys / self.num_cells)

    def _outside_windows(self, seed_threshold: Tensor, seed: Tensor, geometry: Geometry) -> Tensor:
        """Which patches lie in no seed point's window, bool (B, H, Nq, rows * cols)."""
        assert geometry.grid_size is not None
        rows, cols = geometry.grid_size
        queries, heads = bits.all_queries(geometry, seed), bits.heads(geometry, seed)
        seeds = bits.bits_32(seed, self.stream, rows * cols, queries, heads) < seed_threshold
        return ~self._spread(seeds.view(*seeds.shape[:-1], rows, cols)).flatten(-2)

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

    @property
    def num_cells(self) -> int:
        return self.window_size**2

    def _spread(self, seeds: Tensor) -> Tensor:
        return _smear(_smear(seeds, self.window_size, -1), self.window_size, -2)


@dataclass(frozen=True)
class Cross(_Window):
    """Drop crosses around seed points, a row and a column arm of ``window_size`` patches: the paper's DropKey-Cross.

    A cross has ``2 * window_size - 1`` patches. Seed probability, border and prefix tokens as for ``Block``.
    """

    name: ClassVar[str] = "cross"
    stream: ClassVar[int] = 4

    @property
    def num_cells(self) -> int:
        return 2 * self.window_size - 1

    def _spread(self, seeds: Tensor) -> Tensor:
        return _smear(seeds, self.window_size, -1) | _smear(seeds, self.window_size, -2)


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


def _smear(cells: Tensor, window_size: int, dim: int) -> Tensor:
    """Or every cell with its ``window_size // 2`` neighbors on both sides along ``dim``."""
    size = cells.shape[dim]
    out = cells.clone()
    for shift in range(1, min(window_size // 2, size - 1) + 1):
        length = size - shift
        out.narrow(dim, shift, length).logical_or_(cells.narrow(dim, 0, length))
        out.narrow(dim, 0, length).logical_or_(cells.narrow(dim, shift, length))
    return out
