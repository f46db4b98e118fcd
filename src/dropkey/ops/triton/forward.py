"""The forward kernel: one program attends a tile of queries to all keys, in one pass."""

import triton
import triton.language as tl

from dropkey.ops.triton.logits import (
    exponential,
    limit_of,
    load_rows,
    logarithm,
    masked_logits,
    product,
    rounded,
    scores_and_keep,
    store_rows,
    whole_tiles,
)
from dropkey.ops.triton.philox import tile_keys

__all__ = ["forward_kernel"]

# So far below any logit that its weight is exactly 0. A power of two, which scales without rounding: else the product
# that is rounded (the row's maximum) and the one that is not (in a multiply-add) would differ.
DROPPED = tl.constexpr(-(2.0**100))


@triton.jit(do_not_specialize=["threshold", "num_heads", "num_queries", "num_keys"])
def forward_kernel(
    query, key, value, bias, kept, seed, out, row_stats, threshold, scale,
    query_strides, key_strides, value_strides, bias_strides, out_strides,
    num_heads, num_queries, num_keys,
    GROUP: tl.constexpr, PATTERN: tl.constexpr, BIAS: tl.constexpr, BIAS_PER_QUERY: tl.constexpr,
    CAUSAL: tl.constexpr, STORE: tl.constexpr, LATE: tl.constexpr, UPCAST: tl.constexpr,
    DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, VALUE_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Write ``out`` (B, H, Nq, Dv) and ``row_stats`` (3, B, H, Nq): what backward needs to know of a row.

    ``scale`` includes log2(e), but in float32. LATE: it is positive, of an ordinary size, and applied after the row's
    maximum is taken away, in one instruction; for calls without a bias.

    Row maximum and row sum are kept apart, so that a row whose allowed keys are all dropped (its maximum is DROPPED)
    counts its allowed keys. Stored are, in the base of the logits, the log of the row's sum of exponentials, the logit
    of a dropped key: -inf in an ordinary row, and what was rounded off the first. In a row that has lost all its keys
    they are 0, minus the log of its number of allowed keys, and 0.
    """
    num_tiles = tl.cdiv(num_queries, BLOCK_M)
    batch_head = tl.program_id(0) // num_tiles
    start_q = tl.program_id(0) % num_tiles * BLOCK_M
    batch, head = (batch_head // num_heads).to(tl.int64), (batch_head % num_heads).to(tl.int64)
    rows = tl.arange(0, BLOCK_M)
    q = load_rows(query, query_strides, batch, head, start_q, rows, num_queries, DIM, BLOCK_DIM)
    BASE_2: tl.constexpr = q.dtype != tl.float32
    if BIAS:
        bias += batch * bias_strides[0] + head * bias_strides[1]
    draw = (kept, tl.load(seed), limit_of(threshold))
    place = (batch, batch_head, start_q, num_queries, num_keys)
    row_max = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    row_sum = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, BLOCK_DIM), tl.float32)
    # Whole tiles first, then those that need a look at the end of the keys or at the diagonal.
    whole, end = whole_tiles(place, CAUSAL, BLOCK_M, BLOCK_N)
    for MASKED in tl.static_range(2):
        for start_k in range(whole if MASKED else 0, end if MASKED else whole, BLOCK_N):
            start_k = tl.multiple_of(start_k, BLOCK_N)
            k = load_rows(key, key_strides, batch, head // GROUP, start_k, tile_keys(BLOCK_N), num_keys, DIM, BLOCK_DIM)
            scores, keep = scores_and_keep(q, k, draw, place, start_k, PATTERN, STORE, BLOCK_M, BLOCK_N, UPCAST)
            logits = masked_logits(
                scores, keep, DROPPED, 1.0 if LATE else scale, 0.0, place, start_k, bias, bias_strides,
                PATTERN, BIAS, BIAS_PER_QUERY, CAUSAL, BLOCK_M, BLOCK_N, MASKED, BASE_2,
            )  # fmt: skip
            new_max = tl.maximum(row_max, tl.max(logits, 1))
            shift = tl.where(new_max == float("-inf"), 0.0, new_max)  # no allowed key so far: no -inf minus -inf
            if LATE:
                attn = exponential(logits * scale - (shift * scale)[:, None], BASE_2)
                shrink = exponential((row_max - shift) * scale, BASE_2)
            else:
                attn = exponential(logits - shift[:, None], BASE_2)
                shrink = exponential(row_max - shift, BASE_2)
            row_sum = row_sum * shrink + tl.sum(attn, 1)
            v = load_rows(
                value, value_strides, batch, head // GROUP, start_k, tile_keys(BLOCK_N), num_keys,
                VALUE_DIM, BLOCK_DIM,
            )  # fmt: skip
            acc = acc * shrink[:, None] + product(rounded(attn, v.dtype, UPCAST), v, UPCAST)
            row_max = new_max
    log_sum = logarithm(tl.where(row_sum > 0, row_sum, 1.0), BASE_2)
    stats = row_stats + batch_head.to(tl.int64) * num_queries + start_q + rows
    inside = start_q + rows < num_queries
    has_kept, has_lost = row_max > DROPPED, row_max == DROPPED
    if LATE:
        row_max *= scale
    log_total = row_max + log_sum
    added = log_total - row_max
    remainder = (row_max - (log_total - added)) + (log_sum - added)  # exact: Knuth's two-sum
    num_rows = (tl.num_programs(0) // num_tiles).to(tl.int64) * num_queries
    tl.store(stats, tl.where(has_kept, log_total, 0.0), mask=inside)
    tl.store(stats + 2 * num_rows, tl.where(has_kept, remainder, 0.0), mask=inside)
    tl.store(stats + num_rows, tl.where(has_lost, -log_sum, float("-inf")), mask=inside)
    out_tile = acc / tl.where(row_sum > 0, row_sum, 1.0)[:, None]
    store_rows(out, out_strides, batch, head, start_q, rows, num_queries, out_tile, VALUE_DIM, BLOCK_DIM, UPCAST)
