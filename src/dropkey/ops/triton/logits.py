"""Device functions on one tile: loading it, the keep mask over it, and its logits with dropped and forbidden keys."""

import triton
import triton.language as tl

from dropkey.ops.triton.philox import bits_of_bytes, keep_by_call

__all__ = ["keep_tile", "load_rows", "masked_logits", "product", "store_rows"]

# How a pattern reaches the kernel.
ELEMENT = tl.constexpr(0)  # drawn for every query
COLUMN = tl.constexpr(1)  # drawn once a head
TOKEN = tl.constexpr(2)  # a byte a key, (B, Nk)
BITS = tl.constexpr(3)  # a bit a key, (B, H, Nq, ceil(Nk / 8)) bytes
# How a bias is added.
NO_BIAS = tl.constexpr(0)
FLOAT_BIAS = tl.constexpr(1)
BOOL_BIAS = tl.constexpr(2)
LOG2_E = tl.constexpr(1.4426950408889634)  # logits are kept in base 2, for exp2


@triton.jit
def load_rows(tensor, strides, batch, head, start, rows, num_rows, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr):
    """Load rows ``start + rows`` of a (B, H, N, D) tensor whose last stride is 1, zeros beyond its ends."""
    cols = tl.arange(0, BLOCK_DIM)[None, :]
    base = tensor + batch * strides[0] + head * strides[1] + start.to(tl.int64) * strides[2]
    inside = (start + rows < num_rows)[:, None]
    if DIM != BLOCK_DIM:
        inside = inside & (cols < DIM)
    return tl.load(base + rows[:, None] * strides[2] + cols, mask=inside, other=0.0)


@triton.jit
def store_rows(tensor, strides, batch, head, start, rows, num_rows, tile, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr):
    """Store a tile where ``load_rows`` would load it, in the tensor's dtype."""
    cols = tl.arange(0, BLOCK_DIM)[None, :]
    base = tensor + batch * strides[0] + head * strides[1] + start.to(tl.int64) * strides[2]
    inside = (start + rows < num_rows)[:, None] & (cols < DIM)
    tl.store(base + rows[:, None] * strides[2] + cols, tile.to(tensor.dtype.element_ty), mask=inside)


@triton.jit
def product(a, b, UPCAST: tl.constexpr):
    """Multiply matrices with float32 sums; UPCAST for Triton's interpreter, whose bfloat16 product is wrong."""
    if UPCAST:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def keep_tile(
    kept, seed, threshold, batch, head, start_q, start_k, num_queries, num_keys,
    PATTERN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, KEYS_FIRST: tl.constexpr,
):  # fmt: skip
    """Return which keys of a tile are kept: bool, broadcastable to (M, N), or to (N, M) if KEYS_FIRST.

    ``head`` counts over batches (batch * num_heads + head), ``start_k`` is a multiple of 8.
    """
    keys = start_k + tl.arange(0, BLOCK_N)
    calls = start_k // 8 + tl.arange(0, BLOCK_N // 8)
    queries = start_q + tl.arange(0, BLOCK_M)
    if KEYS_FIRST:
        keys, calls, queries = keys[:, None], calls[:, None], queries[None, :]
    else:
        keys, calls, queries = keys[None, :], calls[None, :], queries[:, None]
    if PATTERN == ELEMENT:
        keep = bits_of_bytes(keep_by_call(calls, queries, head, tl.full((), 0, tl.uint32), seed, threshold), KEYS_FIRST)
    elif PATTERN == COLUMN:
        none = tl.full((1, 1), 0, tl.uint32)
        keep = bits_of_bytes(keep_by_call(calls, none, head, tl.full((), 1, tl.uint32), seed, threshold), KEYS_FIRST)
    elif PATTERN == TOKEN:
        keep = tl.load(kept + batch * num_keys + keys, mask=keys < num_keys, other=0) != 0
    else:
        row_bytes = (num_keys + 7) // 8
        rows = kept + (head.to(tl.int64) * num_queries + queries) * row_bytes
        inside = (queries < num_queries) & (calls < row_bytes)
        keep = bits_of_bytes(tl.load(rows + calls, mask=inside, other=0).to(tl.int32), KEYS_FIRST)
    return keep


@triton.jit
def masked_logits(
    scores, keep, dropped, queries, keys, num_queries, num_keys, scale, bias, bias_strides,
    BIAS: tl.constexpr, BIAS_MIN: tl.constexpr, CAUSAL: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Return logits in base 2: ``dropped`` where a key is dropped, -inf where it is forbidden, dropped or not.

    ``queries`` and ``keys`` are positions, one of them a row and one a column; ``bias`` points at this head's. MASKED:
    the tile may reach beyond the last key or, if CAUSAL, over the diagonal.
    """
    logits = scores * scale
    if BIAS != NO_BIAS:
        pointers = bias + queries.to(tl.int64) * bias_strides[2] + keys.to(tl.int64) * bias_strides[3]
        added = tl.load(pointers, mask=(queries < num_queries) & (keys < num_keys), other=0)
    if BIAS == FLOAT_BIAS:
        added = added.to(tl.float32)
        logits += added * LOG2_E
    logits = tl.where(keep, logits, dropped)
    if BIAS == FLOAT_BIAS:
        logits = tl.where(added <= BIAS_MIN, float("-inf"), logits)
    if BIAS == BOOL_BIAS:
        logits = tl.where(added == 0, float("-inf"), logits)
    if MASKED:
        logits = tl.where(keys < num_keys, logits, float("-inf"))
        if CAUSAL:
            logits = tl.where(keys <= queries, logits, float("-inf"))
    return logits
