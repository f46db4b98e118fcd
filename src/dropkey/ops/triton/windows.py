"""Packed keep bits of the structured patterns: two small kernels that run before the attention itself.

The first draws the seed points, a bit a patch; the second looks for a seed in the window around every patch. What the
attention kernels read, and backward reads again, is one bit a key.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from dropkey.ops.triton.logits import limit_of
from dropkey.ops.triton.philox import kept_bits, philox4x32

__all__ = ["fill_element_bits", "fill_window_bits"]

ELEMENT_STREAM = tl.constexpr(0)


@triton.jit
def _packed(bits):
    """Pack eight neighboring bits into a byte, lowest first: (rows, n) -> uint8 (rows, n / 8)."""
    places = tl.arange(0, 8)[None, None, :]
    parts = bits.to(tl.int32).reshape(bits.shape[0], bits.shape[1] // 8, 8)
    return tl.sum(parts << places, 2).to(tl.uint8)


@triton.jit(do_not_specialize=["threshold", "num_rows", "num_queries", "num_keys"])
def element_kernel(
    kept, seed, threshold, num_rows, num_queries, num_keys, BLOCK_ROWS: tl.constexpr, BLOCK_CALLS: tl.constexpr
):
    """Write the bits of "element", which the attention kernels else draw themselves: a byte for eight keys."""
    row = (tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS))[:, None]
    calls = (tl.program_id(1) * BLOCK_CALLS + tl.arange(0, BLOCK_CALLS))[None, :]
    stream = tl.full((), ELEMENT_STREAM, tl.uint32)
    w0, w1, w2, w3 = philox4x32(calls, row % num_queries, row // num_queries, stream, tl.load(seed))
    row_bytes = (num_keys + 7) // 8
    bits = kept_bits(w0, w1, w2, w3, limit_of(threshold))
    tl.store(kept + row * row_bytes + calls, bits, mask=(row < num_rows) & (calls < row_bytes))


@triton.jit(do_not_specialize=["threshold"])
def seed_points_kernel(
    seeds, seed, threshold, num_rows, num_queries, num_cells, STREAM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_CELLS: tl.constexpr,
):  # fmt: skip
    """Draw which cells of the grid are seed points, for every row (batch, head, query); 32 bits a cell."""
    row = (tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS))[:, None]
    start = tl.program_id(1) * BLOCK_CELLS
    calls = (start // 4 + tl.arange(0, BLOCK_CELLS // 4))[None, :]
    stream = tl.full((), STREAM, tl.uint32)
    w0, w1, w2, w3 = philox4x32(calls, row % num_queries, row // num_queries, stream, tl.load(seed))
    words = tl.join(tl.join(w0, w2), tl.join(w1, w3)).reshape(BLOCK_ROWS, BLOCK_CELLS)
    if threshold.dtype.is_ptr():
        threshold = tl.load(threshold)
    row_bytes = (num_cells + 7) // 8
    places = (start // 8 + tl.arange(0, BLOCK_CELLS // 8))[None, :]
    inside = (row < num_rows) & (places < row_bytes)
    tl.store(seeds + row * row_bytes + places, _packed(words.to(tl.int64) < threshold), mask=inside)


@triton.jit(do_not_specialize=["threshold"])
def spread_kernel(
    kept, seeds, seed, threshold, num_rows, num_queries, num_keys, num_prefix, grid_rows, grid_cols, reach,
    CROSS: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_KEYS: tl.constexpr,
):  # fmt: skip
    """Write a bit a key: whether no seed point has it in its window. Prefix keys are drawn as by Element."""
    row = (tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS))[:, None]
    start = tl.program_id(1) * BLOCK_KEYS
    key = (start + tl.arange(0, BLOCK_KEYS))[None, :]
    cell = key - num_prefix
    is_cell = (cell >= 0) & (key < num_keys)
    cell_row, cell_col = cell // grid_cols, cell % grid_cols
    row_seeds = seeds + row * ((grid_rows * grid_cols + 7) // 8)
    dropped = tl.zeros((BLOCK_ROWS, BLOCK_KEYS), tl.int32)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            if (not CROSS) or down == 0 or right == 0:
                near_row, near_col = cell_row + down, cell_col + right
                inside = (near_row >= 0) & (near_row < grid_rows) & (near_col >= 0) & (near_col < grid_cols)
                near = near_row * grid_cols + near_col
                byte = tl.load(row_seeds + (near >> 3), mask=inside & is_cell & (row < num_rows), other=0)
                dropped |= (byte.to(tl.int32) >> (near & 7)) & 1
    keep = (dropped == 0) & is_cell
    if start < num_prefix:
        none = tl.full((), ELEMENT_STREAM, tl.uint32)
        w0, w1, w2, w3 = philox4x32(key >> 3, row % num_queries, row // num_queries, none, tl.load(seed))
        word = (key >> 1) & 3
        drawn = tl.where(word < 2, tl.where(word == 0, w0, w1), tl.where(word == 2, w2, w3))
        half = tl.where((key & 1) == 1, drawn, drawn << 16)
        keep = keep | ((key < num_prefix) & (half >= limit_of(threshold)))
    row_bytes = (num_keys + 7) // 8
    places = (start // 8 + tl.arange(0, BLOCK_KEYS // 8))[None, :]
    tl.store(kept + row * row_bytes + places, _packed(keep), mask=(row < num_rows) & (places < row_bytes))


def fill_element_bits(kept: Tensor, threshold: int | Tensor, seed: Tensor, num_keys: int) -> None:
    """Fill uint8 ``kept`` (B, H, Nq, ceil(num_keys / 8)), the lowest bit of a byte for the first of its eight keys.

    ``threshold`` is what 16 random bits are compared with, or the drop ratio on the GPU.
    """
    num_rows, num_queries, row_bytes = kept[..., 0].numel(), kept.shape[2], kept.shape[3]
    if kept.numel() == 0:
        return
    block_rows, block_calls = 64, min(32, triton.next_power_of_2(row_bytes))
    with torch.cuda.device_of(kept):  # type: ignore[no-untyped-call]
        element_kernel[(triton.cdiv(num_rows, block_rows), triton.cdiv(row_bytes, block_calls))](
            kept, seed, threshold, num_rows, num_queries, num_keys, block_rows, block_calls
        )


def fill_window_bits(
    kept: Tensor,
    threshold: int | Tensor,
    seed_threshold: int | Tensor,
    seed: Tensor,
    num_keys: int,
    grid_size: tuple[int, int],
    window_size: int,
    stream: int,
    is_cross: bool,
) -> None:
    """Fill uint8 ``kept`` (B, H, Nq, ceil(num_keys / 8)), the lowest bit of a byte for the first of its eight keys.

    ``threshold`` is what the 16 random bits of a prefix key are compared with, or the drop ratio on the GPU;
    ``seed_threshold`` is what the 32 bits of a cell are compared with, a number or an int64 on the GPU.
    """
    rows, cols = grid_size
    num_rows, num_queries, cells = kept[..., 0].numel(), kept.shape[2], rows * cols
    if num_rows == 0:
        return
    seeds = kept.new_empty((num_rows, -(-cells // 8)))
    block_rows, block = 8, min(128, max(32, triton.next_power_of_2(num_keys)))
    with torch.cuda.device_of(kept):  # type: ignore[no-untyped-call]
        seed_points_kernel[(triton.cdiv(num_rows, block_rows), triton.cdiv(cells, block))](
            seeds, seed, seed_threshold, num_rows, num_queries, cells, stream, block_rows, block
        )
        spread_kernel[(triton.cdiv(num_rows, block_rows), triton.cdiv(num_keys, block))](
            kept, seeds, seed, threshold, num_rows, num_queries, num_keys, num_keys - cells, rows, cols,
            window_size // 2, is_cross, block_rows, block,
        )  # fmt: skip
