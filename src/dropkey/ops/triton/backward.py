"""The backward kernels: one for the gradient of the queries, one for keys and values; no atomics, so deterministic.

Both draw the keep mask again. A row that has lost all its keys gives its gradient to the values alone.
"""

import triton
import triton.language as tl

from dropkey.ops.triton.logits import (
    exponential,
    limit_of,
    load_rows,
    masked_logits,
    product,
    rounded,
    scores_and_keep,
    store_rows,
    whole_tiles,
)
from dropkey.ops.triton.philox import tile_keys

__all__ = ["key_value_kernel", "query_kernel"]


@triton.jit(do_not_specialize=["threshold", "num_heads", "num_queries", "num_keys", "num_rows"])
def query_kernel(
    query, key, value, bias, kept, seed, out, grad_out, row_stats, delta, grad_query, threshold, scale, logit_scale,
    query_strides, key_strides, value_strides, bias_strides, out_strides, grad_out_strides, grad_query_strides,
    num_heads, num_queries, num_keys, num_rows,
    GROUP: tl.constexpr, PATTERN: tl.constexpr, BIAS: tl.constexpr, BIAS_PER_QUERY: tl.constexpr,
    CAUSAL: tl.constexpr, UPCAST: tl.constexpr, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Write ``grad_query``, and ``delta`` (B, H, Nq), the row sums of out * grad_out, for the other kernel."""
    num_tiles = tl.cdiv(num_queries, BLOCK_M)
    batch_head = tl.program_id(0) // num_tiles
    start_q = tl.program_id(0) % num_tiles * BLOCK_M
    batch, head = (batch_head // num_heads).to(tl.int64), (batch_head % num_heads).to(tl.int64)
    draw = (kept, tl.load(seed), limit_of(threshold))
    rows = tl.arange(0, BLOCK_M)
    inside = start_q + rows < num_queries
    q = load_rows(query, query_strides, batch, head, start_q, rows, num_queries, DIM, BLOCK_DIM)
    o = load_rows(out, out_strides, batch, head, start_q, rows, num_queries, VALUE_DIM, BLOCK_DIM)
    do = load_rows(grad_out, grad_out_strides, batch, head, start_q, rows, num_queries, VALUE_DIM, BLOCK_DIM)
    row = batch_head.to(tl.int64) * num_queries + start_q + rows
    row_delta = tl.sum(o.to(tl.float32) * do.to(tl.float32), 1)
    tl.store(delta + row, row_delta, mask=inside)
    log_sum = tl.load(row_stats + row, mask=inside, other=0.0)
    BASE_2: tl.constexpr = q.dtype != tl.float32
    if not BASE_2:
        remainder = tl.load(row_stats + 2 * num_rows + row, mask=inside, other=0.0)
    if BIAS:
        bias += batch * bias_strides[0] + head * bias_strides[1]
    acc = tl.zeros((BLOCK_M, BLOCK_DIM), tl.float32)
    place = (batch, batch_head, start_q, num_queries, num_keys)
    whole, end = whole_tiles(place, CAUSAL, BLOCK_M, BLOCK_N)
    for MASKED in tl.static_range(2):
        for start_k in range(whole if MASKED else 0, end if MASKED else whole, BLOCK_N):
            start_k = tl.multiple_of(start_k, BLOCK_N)
            k = load_rows(key, key_strides, batch, head // GROUP, start_k, tile_keys(BLOCK_N), num_keys, DIM, BLOCK_DIM)
            # Products without a matrix unit read both factors from shared memory. The barrier keeps them from reading
            # one while the other is still being written, and holding it whole in registers: kilobytes of spills.
            if not BASE_2:
                tl.debug_barrier()
            scores, keep = scores_and_keep(q, k, draw, place, start_k, PATTERN, False, BLOCK_M, BLOCK_N, UPCAST)
            # Dropped is -inf here, in rows that lost all their keys too: they have no gradient for the query.
            logits = masked_logits(
                scores, keep, float("-inf"), scale, log_sum[:, None], place, start_k, bias, bias_strides,
                PATTERN, BIAS, BIAS_PER_QUERY, CAUSAL, BLOCK_M, BLOCK_N, MASKED, BASE_2,
            )  # fmt: skip
            if not BASE_2:  # float32: the rounding of log_sum is not small against that of float32 elsewhere
                logits -= remainder[:, None]
            attn = exponential(logits, BASE_2)
            v = load_rows(
                value, value_strides, batch, head // GROUP, start_k, tile_keys(BLOCK_N), num_keys,
                VALUE_DIM, BLOCK_DIM,
            )  # fmt: skip
            if not BASE_2:
                tl.debug_barrier()
            grad_attn = product(do, v.trans(), UPCAST)
            grad_logits = attn * (grad_attn - row_delta[:, None])
            acc += product(rounded(grad_logits, k.dtype, UPCAST), k, UPCAST)
    store_rows(
        grad_query,
        grad_query_strides,
        batch,
        head,
        start_q,
        rows,
        num_queries,
        acc * logit_scale,
        DIM,
        BLOCK_DIM,
        UPCAST,
    )


@triton.jit(do_not_specialize=["threshold", "num_heads", "num_queries", "num_keys", "num_rows"])
def key_value_kernel(
    query, key, value, bias, kept, seed, grad_out, row_stats, delta, grad_key, grad_value,
    threshold, scale, logit_scale,
    query_strides, key_strides, value_strides, bias_strides, grad_out_strides, grad_key_strides, grad_value_strides,
    num_heads, num_queries, num_keys, num_rows,
    GROUP: tl.constexpr, PATTERN: tl.constexpr, BIAS: tl.constexpr, BIAS_PER_QUERY: tl.constexpr,
    CAUSAL: tl.constexpr, UPCAST: tl.constexpr, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Write ``grad_key`` and ``grad_value`` of a tile of keys, summed over the query heads that share them."""
    num_tiles = tl.cdiv(num_keys, BLOCK_N)
    num_kv_heads = num_heads // GROUP
    batch = (tl.program_id(0) // num_tiles // num_kv_heads).to(tl.int64)
    kv_head = (tl.program_id(0) // num_tiles % num_kv_heads).to(tl.int64)
    start_k = tl.program_id(0) % num_tiles * BLOCK_N
    draw = (kept, tl.load(seed), limit_of(threshold))
    rows, cols = tl.arange(0, BLOCK_M), tile_keys(BLOCK_N)
    k = load_rows(key, key_strides, batch, kv_head, start_k, cols, num_keys, DIM, BLOCK_DIM)
    v = load_rows(value, value_strides, batch, kv_head, start_k, cols, num_keys, VALUE_DIM, BLOCK_DIM)
    BASE_2: tl.constexpr = k.dtype != tl.float32
    key_acc = tl.zeros((BLOCK_N, BLOCK_DIM), tl.float32)
    value_acc = tl.zeros((BLOCK_N, BLOCK_DIM), tl.float32)
    first = 0
    if CAUSAL:
        first = start_k // BLOCK_M * BLOCK_M
    for head in range(kv_head * GROUP, kv_head * GROUP + GROUP):
        batch_head = batch * num_heads + head
        head_bias = bias
        if BIAS:
            head_bias += batch * bias_strides[0] + head * bias_strides[1]
        for start_q in range(first, num_queries, BLOCK_M):
            start_q = tl.multiple_of(start_q, BLOCK_M)
            q = load_rows(query, query_strides, batch, head, start_q, rows, num_queries, DIM, BLOCK_DIM)
            do = load_rows(grad_out, grad_out_strides, batch, head, start_q, rows, num_queries, VALUE_DIM, BLOCK_DIM)
            row, inside = batch_head * num_queries + start_q + rows, start_q + rows < num_queries
            # Beyond the last query the row sum is infinite, so that its weights are 0.
            log_sum = tl.load(row_stats + row, mask=inside, other=float("inf"))
            dropped = tl.load(row_stats + num_rows + row, mask=inside, other=float("-inf"))
            place = (batch, batch_head, start_q, num_queries, num_keys)
            scores, keep = scores_and_keep(q, k, draw, place, start_k, PATTERN, False, BLOCK_M, BLOCK_N, UPCAST)
            logits = masked_logits(
                scores, keep, (dropped - log_sum)[:, None], scale, log_sum[:, None], place, start_k,
                head_bias, bias_strides,
                PATTERN, BIAS, BIAS_PER_QUERY, CAUSAL, BLOCK_M, BLOCK_N, CAUSAL, BASE_2,
            )  # fmt: skip
            if not BASE_2:
                logits -= tl.load(row_stats + 2 * num_rows + row, mask=inside, other=0.0)[:, None]
            attn = exponential(logits, BASE_2)
            value_acc += product(rounded(attn, do.dtype, UPCAST).trans(), do, UPCAST)
            grad_attn = product(do, v.trans(), UPCAST)
            row_delta = tl.load(delta + row, mask=inside, other=0.0)
            # In a row that has lost all its keys, the dropped ones have weights, but no gradient.
            passing = tl.where(dropped > float("-inf"), 0.0, 1.0)
            grad_logits = attn * (grad_attn * passing[:, None] - (row_delta * passing)[:, None])
            key_acc += product(rounded(grad_logits, q.dtype, UPCAST).trans(), q, UPCAST)
    store_rows(
        grad_key,
        grad_key_strides,
        batch,
        kv_head,
        start_k,
        cols,
        num_keys,
        key_acc * logit_scale,
        DIM,
        BLOCK_DIM,
        UPCAST,
    )
    store_rows(
        grad_value,
        grad_value_strides,
        batch,
        kv_head,
        start_k,
        cols,
        num_keys,
        value_acc,
        VALUE_DIM,
        BLOCK_DIM,
        UPCAST,
    )
