"""Tile sizes: a default for every kernel, head dimension and dtype, and what the autotuner tries besides."""

from typing import NamedTuple

__all__ = ["Tile", "candidate_tiles", "default_tile"]


class Tile(NamedTuple):
    """How a kernel cuts its work."""

    block_m: int  # queries
    block_n: int  # keys
    num_warps: int
    num_stages: int  # tiles in flight between memory and the matrix units


INTERPRETED = Tile(32, 32, 4, 1)


def default_tile(kernel: str, block_dim: int, is_float32: bool, is_hip: bool) -> Tile:
    """Return the tile that compiles without spilling on every target.

    Args:
        kernel: "forward", "query" or "key_value".
        block_dim: the larger of the two padded head dimensions, 16 to 256.
        is_float32: float32 products have no matrix unit on CUDA and hold more in registers.
        is_hip: 64 threads a warp, and 64 KiB of shared memory.
    """
    if is_float32:
        return Tile(32, 32, 4, 1)
    if kernel == "forward":
        return Tile(128 if block_dim <= 128 else 64, 64 if block_dim <= 64 else 32, 4 if block_dim <= 64 else 8, 2)
    return Tile(64, 64 if block_dim <= 64 else 32, 4 if block_dim <= 64 else 8, 1 if is_hip else 2)


def candidate_tiles(kernel: str, block_dim: int, is_float32: bool, is_hip: bool) -> list[Tile]:
    """Return the default tile and those worth timing against it."""
    default = default_tile(kernel, block_dim, is_float32, is_hip)
    m, n, warps, stages = default
    others = [Tile(m, n, warps, stages + 1), Tile(m // 2, n, 4, stages), Tile(m, n * 2, 8, stages), Tile(m, n, 12 - warps, stages)]
    return [default, *(tile for tile in others if tile != default and min(tile.block_m, tile.block_n) >= 16)]
