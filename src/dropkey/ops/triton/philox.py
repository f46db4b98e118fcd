"""Device functions that draw the keep mask: Philox4x32 with 7 rounds, eight keys a call, as in ``dropkey.patterns``.

The first rounds mix few coordinates: written on (queries, 1) and (1, calls) blocks that only meet where they must, the
products of the first two rounds and one of the third cost a row or a column, not a tile: 9 of 14 products remain for
every call of eight keys.
"""

import triton
import triton.language as tl

__all__ = ["in_tile_order", "kept_bits", "kept_keys", "philox4x32", "tile_keys"]

NUM_ROUNDS = tl.constexpr(7)
MULTIPLIER_0 = tl.constexpr(0xD2511F53)
MULTIPLIER_1 = tl.constexpr(0xCD9E8D57)
KEY_STEP_0 = tl.constexpr(0x9E3779B9)
KEY_STEP_1 = tl.constexpr(0xBB67AE85)


@triton.jit
def philox4x32(c0, c1, c2, c3, seed):
    """Return four uint32 words for counters of any broadcastable integer shapes; ``seed`` is an int64 scalar."""
    c0, c1, c2, c3 = c0.to(tl.uint32), c1.to(tl.uint32), c2.to(tl.uint32), c3.to(tl.uint32)
    k0 = seed.to(tl.uint32)
    k1 = (seed.to(tl.uint64) >> 32).to(tl.uint32)
    for _ in tl.static_range(NUM_ROUNDS):
        # 32 x 32 -> 64 bits in one instruction; Triton's own philox takes two.
        p0 = c0.to(tl.uint64) * MULTIPLIER_0
        p1 = c2.to(tl.uint64) * MULTIPLIER_1
        c0, c2 = (p1 >> 32).to(tl.uint32) ^ (c1 ^ k0), (p0 >> 32).to(tl.uint32) ^ (c3 ^ k1)
        c1, c3 = p1.to(tl.uint32), p0.to(tl.uint32)
        k0 = tl.add(k0, KEY_STEP_0, sanitize_overflow=False)
        k1 = tl.add(k1, KEY_STEP_1, sanitize_overflow=False)
    return c0, c1, c2, c3


@triton.jit
def kept_keys(w0, w1, w2, w3, limit):
    """Return which keys are kept, bool (queries, 8 * calls) in tile order, of the words of one call for eight keys.

    A key is dropped when its 16 bits are below the high 16 of ``limit`` (see ``logits.limit_of``): the high half of a
    word is compared as it is, the low half moved up.
    """
    keep = tl.join(
        tl.join(_halves_kept(w0, limit), _halves_kept(w2, limit)),
        tl.join(_halves_kept(w1, limit), _halves_kept(w3, limit)),
    )  # (queries, calls, half, word >> 1, word & 1)
    parts = keep.reshape(keep.shape[0], keep.shape[1] // 4, 4, 2, 4)
    return parts.permute(0, 1, 4, 2, 3).reshape(keep.shape[0], keep.shape[1] * 8)


@triton.jit
def kept_bits(w0, w1, w2, w3, limit):
    """Return the same as bits, uint8 (queries, calls): the lowest bit for the first of a call's eight keys."""
    low, high = _pair_bits(w0, limit) | (_pair_bits(w1, limit) << 2), _pair_bits(w2, limit)
    return (low | (high << 4) | (_pair_bits(w3, limit) << 6)).to(tl.uint8)


@triton.jit
def _halves_kept(word, limit):
    return tl.join((word << 16) >= limit, word >= limit)


@triton.jit
def _pair_bits(word, limit):
    return ((word << 16) >= limit).to(tl.int32) | ((word >= limit).to(tl.int32) << 1)


@triton.jit
def in_tile_order(tile):
    """Permute columns from the order of the keys to that of ``tile_keys``."""
    parts = tile.reshape(tile.shape[0], tile.shape[1] // 32, 4, 4, 2)  # (row, group, call, word, half)
    return parts.permute(0, 1, 3, 2, 4).reshape(tile.shape[0], tile.shape[1])


@triton.jit
def tile_keys(BLOCK_N: tl.constexpr):
    """Return which key each column of a tile holds.

    In the accumulator of a matrix instruction, a thread holds two columns of every eight. Keys are dealt to columns so
    that the eight columns of 32 that a thread holds are the eight keys of one Philox call: it draws only for itself,
    and no bit is handed from thread to thread.
    """
    column = tl.arange(0, BLOCK_N)
    call, word, half = (column >> 1) & 3, (column >> 3) & 3, column & 1
    return (column & -32) | (call << 3) | (word << 1) | half
