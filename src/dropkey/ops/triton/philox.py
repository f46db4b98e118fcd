"""Device functions that draw the keep mask: Philox4x32 with 7 rounds, eight keys a call, as in ``dropkey.patterns``.

The first rounds mix few coordinates: written on (queries, 1) and (1, calls) blocks that only meet where they must, the
products of the first two rounds and one of the third cost a row or a column, not a tile: 9 of 14 products remain for
every call of eight keys.
"""

import triton
import triton.language as tl

__all__ = ["bits_of_bytes", "keep_by_call", "philox4x32"]

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
def keep_by_call(calls, queries, head, stream, seed, threshold):
    """Return the keep bits of eight keys a call as a byte, int32 of shape (queries, calls) or (calls, queries).

    Bit k & 7 is 1 where key k is kept: where its 16 bits are not below ``threshold``.
    """
    w0, w1, w2, w3 = philox4x32(calls, queries, head, stream, seed)
    bits = _keep_two(w0, threshold) | (_keep_two(w1, threshold) << 2)
    return bits | (_keep_two(w2, threshold) << 4) | (_keep_two(w3, threshold) << 6)


@triton.jit
def _keep_two(word, threshold):
    low, high = (word & 0xFFFF).to(tl.int32), (word >> 16).to(tl.int32)
    return (low >= threshold).to(tl.int32) | ((high >= threshold).to(tl.int32) << 1)


@triton.jit
def bits_of_bytes(packed, KEYS_FIRST: tl.constexpr):
    """Spread bytes of eight keys over their keys: (M, N / 8) -> bool (M, N), or (N / 8, M) -> (N, M) if KEYS_FIRST."""
    if KEYS_FIRST:
        places = tl.arange(0, 8)[None, :, None]
        bits = (packed[:, None, :] >> places) & 1
        keep = bits.reshape(packed.shape[0] * 8, packed.shape[1])
    else:
        places = tl.arange(0, 8)[None, None, :]
        bits = (packed[:, :, None] >> places) & 1
        keep = bits.reshape(packed.shape[0], packed.shape[1] * 8)
    return keep != 0
