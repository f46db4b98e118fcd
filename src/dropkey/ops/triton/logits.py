"""Device functions on one tile: loading it, the keep mask over it, and its logits with dropped and forbidden keys."""

import triton
import triton.language as tl

from dropkey.ops.triton.philox import in_tile_order, kept_bits, kept_keys, philox4x32, tile_keys

__all__ = [
    "exponential",
    "limit_of",
    "load_rows",
    "logarithm",
    "masked_logits",
    "product",
    "rounded",
    "scores_and_keep",
    "store_rows",
    "whole_tiles",
]

# How a pattern reaches the kernel.
ELEMENT = tl.constexpr(0)  # drawn for every query
COLUMN = tl.constexpr(1)  # drawn once a head
TOKEN = tl.constexpr(2)  # a byte a key, (B, Nk)
BITS = tl.constexpr(3)  # a bit a key, (B, H, Nq, ceil(Nk / 8)) bytes
NONE = tl.constexpr(4)  # nothing is dropped: what the draw costs is measured against this
# How a bias is added.
NO_BIAS = tl.constexpr(0)
FLOAT_BIAS = tl.constexpr(1)
BOOL_BIAS = tl.constexpr(2)
LOG2_E = tl.constexpr(1.4426950216293335)  # as a float32, and the rest of it
LOG2_E_LOW = tl.constexpr(1.92596298909109e-08)
LOG_2 = tl.constexpr(0.6931471805599453)
SMALLEST_LOG = tl.constexpr(-200.0)  # its power is 0; -inf less -inf would be NaN
FORBIDDEN = tl.constexpr(-5000.0)  # a bias at or below this forbids a key
TO_INTEGER = tl.constexpr(4503599627370496.0)  # 2 ** 52: added and taken away, it rounds a float64 to nearest even


@triton.jit
def load_rows(tensor, strides, batch, head, start, rows, num_rows, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr):
    """Load rows ``start + rows`` of a (B, H, N, D) tensor whose last stride is 1, zeros beyond its ends."""
    pointers, cols = _pointers(tensor, strides, batch, head, start, rows, BLOCK_DIM)
    inside = (start + rows < num_rows)[:, None]
    if DIM != BLOCK_DIM:
        inside = inside & (cols < DIM)
    return tl.load(pointers, mask=inside, other=0.0)


@triton.jit
def store_rows(
    tensor, strides, batch, head, start, rows, num_rows, tile,
    DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Store a tile where ``load_rows`` would load it, in the tensor's dtype."""
    pointers, cols = _pointers(tensor, strides, batch, head, start, rows, BLOCK_DIM)
    inside = (start + rows < num_rows)[:, None] & (cols < DIM)
    tl.store(pointers, rounded(tile, tensor.dtype.element_ty, UPCAST), mask=inside)


@triton.jit
def _pointers(tensor, strides, batch, head, start, rows, BLOCK_DIM: tl.constexpr):
    """Return pointers (rows, BLOCK_DIM) and their columns. Inside of a tile 32 bits count: see ``launch.near``."""
    cols = tl.arange(0, BLOCK_DIM)[None, :]
    base = tensor + batch * strides[0] + head * strides[1] + start.to(tl.int64) * strides[2]
    return base + (rows[:, None] * strides[2] + cols), cols


@triton.jit
def exponential(x, BASE_2: tl.constexpr):
    """Return 2 ** x, which is what GPUs have, or e ** x.

    Logits are kept in base 2, which saves a product a pair; in float32 in base e, since they round less there. What
    the product with log2(e) rounds off is made good.
    """
    if BASE_2:
        power = tl.exp2(x)
    else:
        x = tl.where(x < SMALLEST_LOG, SMALLEST_LOG, x)  # NaN stays
        high = x * LOG2_E
        low = tl.fma(x, LOG2_E, -high) + x * LOG2_E_LOW
        power = tl.exp2(high)
        power += power * (low * LOG_2)
    return power


@triton.jit
def logarithm(x, BASE_2: tl.constexpr):
    """Return the logarithm in the base of ``exponential``."""
    return tl.log2(x) if BASE_2 else tl.log(x)


@triton.jit
def rounded(tile, dtype: tl.constexpr, UPCAST: tl.constexpr):
    """Return a float32 tile in another dtype, rounded to nearest even.

    UPCAST is for bfloat16 in Triton's interpreter, which cuts the low half off: there it is rounded away beforehand.
    """
    if UPCAST:
        bits = tile.to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        tile = bits.to(tl.float32, bitcast=True)
    return tile.to(dtype)


@triton.jit
def product(a, b, UPCAST: tl.constexpr):
    """Multiply matrices with float32 sums; UPCAST for Triton's interpreter, whose bfloat16 product is wrong."""
    if UPCAST:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def limit_of(threshold):
    """Return what 32 bits are compared with, uint32, of which the low 16 do not matter.

    ``threshold`` is what their high 16 are compared with, or a pointer to the float64 drop ratio.
    """
    if threshold.dtype.is_ptr():
        threshold = ((tl.load(threshold) * 65536 + TO_INTEGER) - TO_INTEGER).to(tl.int32)
    return tl.minimum(threshold.to(tl.int64) << 16, 0xFFFFFFFF).to(tl.uint32)


@triton.jit
def whole_tiles(place, CAUSAL: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Return where the tiles end that all queries see whole, and where the keys end that any of them sees."""
    whole, end = place[4], place[4]
    if CAUSAL:
        whole, end = tl.minimum(whole, place[2] + 1), tl.minimum(end, place[2] + BLOCK_M)
    return whole // BLOCK_N * BLOCK_N, end


@triton.jit
def keep_tile(
    draw, place, start_k, PATTERN: tl.constexpr, STORE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):
    """Return which keys of a tile are kept: bool (M, N) or (1, N), columns in tile order.

    ``draw`` is (kept, seed, limit); ``place`` is (batch, batch * num_heads + head, start_q, num_queries, num_keys);
    ``start_k`` is a multiple of 32. STORE: a drawn tile is written to ``kept`` too, a bit a key.
    """
    kept, seed, limit = draw
    batch, head, start_q, num_queries, num_keys = place
    queries = (start_q + tl.arange(0, BLOCK_M))[:, None]
    calls = (start_k // 8 + tl.arange(0, BLOCK_N // 8))[None, :]
    if PATTERN == ELEMENT:
        w0, w1, w2, w3 = philox4x32(calls, queries, head, tl.full((), 0, tl.uint32), seed)
        keep = kept_keys(w0, w1, w2, w3, limit)
        if STORE:
            pointers, inside = _bit_pointers(kept, head, queries, calls, num_queries, num_keys)
            inside = inside & (queries < num_queries)
            tl.store(pointers, kept_bits(w0, w1, w2, w3, limit), mask=inside)
    elif PATTERN == COLUMN:
        none = tl.full((1, 1), 0, tl.uint32)
        w0, w1, w2, w3 = philox4x32(calls, none, head, tl.full((), 1, tl.uint32), seed)
        keep = kept_keys(w0, w1, w2, w3, limit)
    elif PATTERN == TOKEN:
        keys = (start_k + tile_keys(BLOCK_N))[None, :]
        keep = tl.load(kept + batch * num_keys + keys, mask=keys < num_keys, other=0) != 0
    elif PATTERN == BITS:
        pointers, inside = _bit_pointers(kept, head, queries, calls, num_queries, num_keys)
        packed = tl.load(pointers, mask=inside, other=0)
        bits = packed.to(tl.int32)[:, :, None] >> tl.arange(0, 8)[None, None, :]
        keep = in_tile_order((bits & 1).reshape(BLOCK_M, BLOCK_N)) != 0
    else:
        keep = tl.full((1, BLOCK_N), 1, tl.int1)
    return keep


@triton.jit
def _bit_pointers(kept, head, queries, calls, num_queries, num_keys):
    """Return where the bits of eight keys of a query lie, (queries, calls), and whether there are such keys."""
    row_bytes = (num_keys + 7) // 8
    rows = head.to(tl.int64) * num_queries + tl.minimum(queries, num_queries - 1)
    return kept + rows * row_bytes + calls, calls < row_bytes


@triton.jit
def scores_and_keep(
    q, k, draw, place, start_k,
    PATTERN: tl.constexpr, STORE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Return the products of queries and keys, and which of them are kept.

    The order decides what must be held in registers: AMD's compiler holds a bool of a tile in scalar registers, of
    which there are few, so it is made last; products done in registers (float32) want none of them in between.
    """
    if q.dtype == tl.float32:
        keep = keep_tile(draw, place, start_k, PATTERN, STORE, BLOCK_M, BLOCK_N)
        scores = product(q, k.trans(), UPCAST)
    else:
        scores = product(q, k.trans(), UPCAST)
        keep = keep_tile(draw, place, start_k, PATTERN, STORE, BLOCK_M, BLOCK_N)
    return scores, keep


@triton.jit
def masked_logits(
    scores, keep, dropped, scale, shift, place, start_k, bias, bias_strides,
    PATTERN: tl.constexpr, BIAS: tl.constexpr, BIAS_PER_QUERY: tl.constexpr, CAUSAL: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, MASKED: tl.constexpr, BASE_2: tl.constexpr,
):  # fmt: skip
    """Return logits in the base that ``scale`` is for, less ``shift``.

    They are ``dropped`` where a key is dropped, and -inf where it is forbidden, dropped or not. Scaled and shifted at
    once, a logit takes one instruction.
    ``bias`` points at this head's. MASKED: the tile may reach beyond the last key or, if CAUSAL, over the diagonal.
    """
    logits = scores * scale - shift
    if BIAS != NO_BIAS:
        added = _bias_tile(bias, bias_strides, place, start_k, BIAS_PER_QUERY, BLOCK_M, BLOCK_N)
    if BIAS == FLOAT_BIAS:
        logits += added.to(tl.float32) * (LOG2_E if BASE_2 else 1.0)
    if PATTERN != NONE:
        logits = tl.where(keep, logits, dropped)
    if BIAS == FLOAT_BIAS:
        logits = tl.where(added.to(tl.float32) <= FORBIDDEN, float("-inf"), logits)
    if BIAS == BOOL_BIAS:
        logits = tl.where(added == 0, float("-inf"), logits)
    if MASKED:
        keys = (start_k + tile_keys(BLOCK_N))[None, :]
        logits = tl.where(keys < place[4], logits, float("-inf"))
        if CAUSAL:
            logits = tl.where(keys <= (place[2] + tl.arange(0, BLOCK_M))[:, None], logits, float("-inf"))
    return logits


@triton.jit
def _bias_tile(bias, strides, place, start_k, PER_QUERY: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Load a tile of a bias, (M, N) or, if it is the same for all queries, (1, N)."""
    if PER_QUERY:
        keys = start_k + tl.arange(0, BLOCK_N)[None, :]
        queries = place[2] + tl.arange(0, BLOCK_M)[:, None]
        queries = tl.minimum(queries, place[3] - 1)
        pointers = bias + queries.to(tl.int64) * strides[2] + keys.to(tl.int64) * strides[3]
        tile = in_tile_order(tl.load(pointers, mask=keys < place[4], other=0))
    else:
        keys = (start_k + tile_keys(BLOCK_N))[None, :]
        tile = tl.load(bias + keys.to(tl.int64) * strides[3], mask=keys < place[4], other=0)
    return tile
