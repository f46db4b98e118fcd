"""Tile sizes: a default for every kernel, head dimension and dtype, and what the autotuner tries besides."""

from typing import NamedTuple

__all__ = ["INTERPRETED", "Tile", "candidate_tiles", "default_tile"]


class Tile(NamedTuple):
    """How a kernel cuts its work."""

    block_m: int  # queries
    block_n: int  # keys, a multiple of 32
    num_warps: int
    num_stages: int  # tiles in flight between memory and the matrix units


INTERPRETED = Tile(32, 32, 4, 1)

# By padded head dimension, smaller ones that are not named as 64; among the largest that compile without spilling on
# every target. Sums over 64 rows or more use Hopper's wide products.
_HALF = {
    "forward": {16: Tile(128, 32, 8, 2), 64: Tile(128, 64, 8, 2), 128: Tile(128, 32, 8, 2), 256: Tile(64, 32, 8, 1)},
    "query": {64: Tile(64, 32, 4, 2), 128: Tile(64, 32, 8, 2), 256: Tile(32, 32, 8, 1)},
    "key_value": {64: Tile(64, 64, 4, 2), 128: Tile(32, 64, 8, 1), 256: Tile(32, 32, 8, 1)},
}
# float32 products have no matrix unit on CUDA: they are done in registers, and want small tiles.
_FLOAT32 = {
    "forward": {16: Tile(32, 32, 8, 1), 64: Tile(64, 32, 8, 1), 128: Tile(32, 32, 8, 1), 256: Tile(16, 32, 8, 1)},
    "query": {64: Tile(32, 32, 8, 1), 128: Tile(16, 32, 16, 1), 256: Tile(16, 32, 16, 1)},
    "key_value": {64: Tile(32, 32, 8, 1), 128: Tile(16, 32, 16, 1), 256: Tile(16, 32, 8, 1)},
}
# A warp has 64 threads on AMD's GPUs, and four of them twice the registers of eight.
_HALF_HIP = {
    "forward": {256: Tile(32, 32, 8, 1)},
    "query": {256: Tile(32, 32, 4, 1)},
    "key_value": {128: Tile(32, 32, 4, 1), 256: Tile(32, 32, 4, 1)},
}
_FLOAT32_HIP = {
    "forward": {128: Tile(16, 32, 8, 1), 256: Tile(16, 32, 4, 1)},
    "query": {128: Tile(16, 32, 4, 1), 256: Tile(16, 32, 4, 1)},
    "key_value": {64: Tile(16, 32, 4, 1), 128: Tile(16, 32, 4, 1), 256: Tile(16, 32, 4, 1)},
}


def default_tile(kernel: str, block_dim: int, is_float32: bool, is_hip: bool) -> Tile:
    """Return the tile of a kernel.

    Args:
        kernel: "forward", "query" or "key_value".
        block_dim: the larger of the two padded head dimensions, 16 to 256.
        is_float32: whether the tensors are float32.
        is_hip: whether the GPU is AMD's.
    """
    tiles = dict((_FLOAT32 if is_float32 else _HALF)[kernel])
    if is_hip:
        tiles |= (_FLOAT32_HIP if is_float32 else _HALF_HIP)[kernel]
    return tiles[block_dim] if block_dim in tiles else tiles[64]


def candidate_tiles(kernel: str, block_dim: int, is_float32: bool, is_hip: bool) -> list[Tile]:
    """Return the default tile and those worth timing against it."""
    m, n, warps, stages = default_tile(kernel, block_dim, is_float32, is_hip)
    others = [
        (m, n, warps, stages + 1),
        (m, n, 4 if warps == 8 else 8, stages),
        (m, 2 * n, warps, stages),
        (m, max(32, n // 2), warps, stages),
        (max(16, m // 2), n, 4, stages),
    ]
    return list(dict.fromkeys([Tile(m, n, warps, stages), *(Tile(*other) for other in others)]))
