"""Tile sizes: a default for every kernel, head dimension and dtype, and what is worth timing against it."""

import os
from typing import Literal, NamedTuple

__all__ = ["INTERPRETED", "IS_INTERPRETING", "IS_TESTING", "Gpu", "Tile", "candidate_tiles", "default_tile"]

# Kernels are run by Triton's interpreter, on the CPU. Read on import: a compiled graph cannot ask again.
IS_INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"
IS_TESTING = not IS_INTERPRETING  # kernels test themselves on this GPU at the first use of a kind

# "hopper": NVIDIA's GPUs with matrix units that read shared memory (9.x and 10.x); "ampere": all others of NVIDIA's.
Gpu = Literal["ampere", "hopper", "amd"]


class Tile(NamedTuple):
    """How a kernel cuts its work."""

    block_m: int  # queries
    block_n: int  # keys, a multiple of 32
    num_warps: int
    num_stages: int  # tiles in flight between memory and the matrix units


INTERPRETED = Tile(32, 32, 4, 1)

# By padded head dimension, smaller ones that are not named as 64. Hopper's, up to 128, are the fastest of those timed
# on an H200; all others are among the largest that do not spill, whatever the pattern, bias and causal mask.
_HALF = {
    "forward": {64: Tile(64, 32, 4, 3), 128: Tile(64, 32, 4, 3), 256: Tile(64, 32, 8, 2)},
    "query": {64: Tile(64, 32, 4, 3), 128: Tile(64, 64, 4, 1), 256: Tile(32, 32, 8, 1)},
    "key_value": {64: Tile(64, 64, 4, 3), 128: Tile(64, 64, 4, 1), 256: Tile(32, 32, 8, 1)},
}
# float32 products have no matrix unit on CUDA: they are done in registers, and want small tiles and many warps.
_FLOAT32 = {
    "forward": {64: Tile(32, 32, 16, 1), 128: Tile(16, 32, 16, 1), 256: Tile(32, 32, 16, 1)},
    "query": {64: Tile(32, 32, 8, 1), 128: Tile(32, 32, 16, 1), 256: Tile(16, 32, 16, 1)},
    "key_value": {64: Tile(32, 32, 8, 1), 128: Tile(16, 64, 8, 1), 256: Tile(16, 32, 8, 1)},
}
# Without Hopper's matrix units, every warp holds keys and values of the whole tile in registers.
_HALF_AMPERE = {
    "forward": {16: Tile(128, 32, 8, 2), 64: Tile(128, 64, 8, 2), 128: Tile(128, 32, 8, 2), 256: Tile(64, 32, 8, 2)},
    "query": {64: Tile(64, 32, 4, 3), 128: Tile(64, 32, 8, 2), 256: Tile(32, 32, 8, 1)},
    "key_value": {64: Tile(64, 32, 4, 2), 128: Tile(32, 64, 8, 1), 256: Tile(32, 32, 8, 1)},
}
# AMD's matrix instructions take 32 queries (or 16) a warp, of 64 threads: warps beyond those do the same work again.
# Four warps have twice the registers of eight; where a tile has more warps than it needs, it is for their sake.
_HALF_AMD = {
    "forward": {64: Tile(128, 32, 4, 2), 128: Tile(128, 32, 4, 2), 256: Tile(128, 32, 4, 1)},
    "query": {64: Tile(128, 32, 4, 2), 128: Tile(128, 32, 4, 1), 256: Tile(64, 32, 4, 1)},
    "key_value": {64: Tile(64, 32, 2, 1), 128: Tile(128, 32, 4, 1), 256: Tile(32, 32, 4, 1)},
}
_FLOAT32_AMD = {
    "forward": {64: Tile(128, 32, 4, 1), 128: Tile(64, 32, 4, 1), 256: Tile(32, 32, 4, 1)},
    "query": {64: Tile(128, 32, 4, 1), 128: Tile(32, 32, 4, 1), 256: Tile(16, 32, 4, 1)},
    "key_value": {64: Tile(64, 32, 2, 1), 128: Tile(64, 32, 4, 1), 256: Tile(16, 32, 4, 1)},
}


# On Hopper in half precision, by padded head dimension.
_WORTH_TIMING: dict[str, dict[int, list[tuple[int, int, int, int]]]] = {
    "forward": {
        64: [(64, 64, 4, 3), (64, 64, 4, 4), (64, 128, 4, 3), (64, 32, 4, 4), (128, 64, 4, 3), (128, 128, 8, 3)],
        128: [(64, 32, 4, 4), (64, 64, 4, 3), (64, 64, 8, 3), (128, 32, 8, 3), (128, 32, 4, 3), (128, 64, 8, 4)],
    },
    "query": {
        64: [(64, 32, 4, 4), (64, 64, 4, 4), (128, 32, 8, 4), (64, 32, 4, 2), (128, 32, 4, 3), (64, 64, 4, 3)],
        128: [(64, 32, 4, 2), (64, 32, 4, 3), (64, 64, 4, 3), (128, 32, 4, 2), (64, 64, 4, 2), (128, 64, 8, 1)],
    },
    "key_value": {
        64: [(64, 64, 4, 4), (128, 64, 8, 3), (32, 64, 4, 3), (64, 32, 4, 3), (64, 32, 4, 4), (128, 64, 4, 2)],
        128: [(64, 64, 4, 2), (64, 64, 4, 3), (64, 32, 4, 2), (64, 32, 4, 3), (128, 32, 4, 1), (32, 64, 4, 2)],
    },
}


def default_tile(kernel: str, block_dim: int, is_float32: bool, gpu: Gpu) -> Tile:
    """Return the tile of a kernel.

    Args:
        kernel: "forward", "query" or "key_value".
        block_dim: the larger of the two padded head dimensions, 16 to 256.
        is_float32: whether the tensors are float32.
        gpu: "ampere", "hopper" or "amd".
    """
    half = {"ampere": _HALF_AMPERE, "hopper": _HALF, "amd": _HALF_AMD}
    tiles = (half[gpu] if not is_float32 else _FLOAT32_AMD if gpu == "amd" else _FLOAT32)[kernel]
    return tiles[block_dim] if block_dim in tiles else tiles[64]


def candidate_tiles(kernel: str, block_dim: int, is_float32: bool, gpu: Gpu) -> list[Tile]:
    """Return the default tile and those worth timing against it."""
    m, n, warps, stages = default_tile(kernel, block_dim, is_float32, gpu)
    others = [] if is_float32 or gpu != "hopper" else _WORTH_TIMING[kernel].get(max(64, block_dim), [])
    others = others or [
        (m, n, warps, stages + 1),
        (m, n, 4 if warps == 8 else 8, stages),
        (m, 2 * n, warps, stages),
        (m, max(32, n // 2), warps, stages),
        (max(16, m // 2), n, 4, stages),
    ]
    return list(dict.fromkeys([Tile(m, n, warps, stages), *(Tile(*other) for other in others)]))
