"""The backward pass in one kernel: logits, weights and mask are computed once for all three gradients.

A program takes the keys of one head (or a part of them) tile by tile, and all queries for each. The gradients of its
keys and values stay in registers; that of the queries is summed up in memory, in float32, by this program alone: no
atomics, so the same call gives the same bits.
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
)
from dropkey.ops.triton.philox import tile_keys

__all__ = ["delta_kernel", "gradients_kernel", "sum_kernel"]


@triton.jit(do_not_specialize=["num_heads", "num_queries"])
def delta_kernel(
    out, grad_out, delta, out_strides, grad_out_strides, num_heads, num_queries,
    VALUE_DIM: tl.constexpr, BLOCK_VALUE_DIM: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Write ``delta`` (B, H, Nq), the row sums of out * grad_out."""
    num_tiles = tl.cdiv(num_queries, BLOCK_M)
    batch_head = tl.program_id(0) // num_tiles
    start_q = tl.program_id(0) % num_tiles * BLOCK_M
    batch, head = (batch_head // num_heads).to(tl.int64), (batch_head % num_heads).to(tl.int64)
    rows = tl.arange(0, BLOCK_M)
    o = load_rows(out, out_strides, batch, head, start_q, rows, num_queries, VALUE_DIM, BLOCK_VALUE_DIM)
    do = load_rows(grad_out, grad_out_strides, batch, head, start_q, rows, num_queries, VALUE_DIM, BLOCK_VALUE_DIM)
    row_delta = tl.sum(o.to(tl.float32) * do.to(tl.float32), 1)
    row = batch_head.to(tl.int64) * num_queries + start_q + rows
    tl.store(delta + row, row_delta, mask=start_q + rows < num_queries)


@triton.jit(do_not_specialize=["threshold", "num_heads", "num_queries", "num_keys", "num_rows", "part_size"])
def gradients_kernel(
    query, key, value, bias, kept, seed, grad_out, row_stats, delta, partial, grad_query, grad_key, grad_value,
    threshold, scale, logit_scale,
    query_strides, key_strides, value_strides, bias_strides, grad_out_strides, grad_query_strides, grad_key_strides,
    grad_value_strides, num_heads, num_queries, num_keys, num_rows, part_size,
    GROUP: tl.constexpr, PATTERN: tl.constexpr, BIAS: tl.constexpr, BIAS_PER_QUERY: tl.constexpr,
    IS_WHOLE: tl.constexpr, UPCAST: tl.constexpr, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr, BLOCK_VALUE_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Write the gradients of a part of the keys of one head, and what they add to that of the queries.

    A part are ``part_size`` keys, a multiple of BLOCK_N. Where it is all keys (IS_WHOLE), the gradient of the queries
    is written; else the part's sum is left in ``partial`` (parts, B * H, Nq, BLOCK_DIM), float32, for ``sum_kernel``.
    """
    num_parts = tl.cdiv(num_keys, part_size)
    num_kv_heads = num_heads // GROUP
    part = tl.program_id(0) % num_parts
    batch = (tl.program_id(0) // num_parts // num_kv_heads).to(tl.int64)
    kv_head = (tl.program_id(0) // num_parts % num_kv_heads).to(tl.int64)
    draw = (kept, tl.load(seed), limit_of(threshold))
    rows, cols = tl.arange(0, BLOCK_M), tile_keys(BLOCK_N)
    places = rows[:, None] * BLOCK_DIM + tl.arange(0, BLOCK_DIM)[None, :]
    first_k, end_k = part * part_size, tl.minimum(num_keys, (part + 1) * part_size)
    last = first_k + (end_k - first_k - 1) // BLOCK_N * BLOCK_N
    for LAST in tl.static_range(2):  # the last tile may reach beyond the keys
        for start_k in range(last if LAST else first_k, end_k if LAST else last, BLOCK_N):
            start_k = tl.multiple_of(start_k, 32)
            k = load_rows(key, key_strides, batch, kv_head, start_k, cols, num_keys, DIM, BLOCK_DIM)
            v = load_rows(value, value_strides, batch, kv_head, start_k, cols, num_keys, VALUE_DIM, BLOCK_VALUE_DIM)
            key_acc = tl.zeros((BLOCK_N, BLOCK_DIM), tl.float32)
            value_acc = tl.zeros((BLOCK_N, BLOCK_VALUE_DIM), tl.float32)
            for head in range(kv_head * GROUP, kv_head * GROUP + GROUP):
                batch_head = batch * num_heads + head
                head_bias = bias
                if BIAS:
                    head_bias += batch * bias_strides[0] + head * bias_strides[1]
                for start_q in range(0, num_queries, BLOCK_M):
                    start_q = tl.multiple_of(start_q, BLOCK_M)
                    q = load_rows(query, query_strides, batch, head, start_q, rows, num_queries, DIM, BLOCK_DIM)
                    do = load_rows(
                        grad_out, grad_out_strides, batch, head, start_q, rows, num_queries,
                        VALUE_DIM, BLOCK_VALUE_DIM,
                    )  # fmt: skip
                    first_row, inside = batch_head * num_queries + start_q, start_q + rows < num_queries
                    # Beyond the last query the row sum is infinite, so that its weights are 0.
                    log_sum = tl.load(row_stats + first_row + rows, mask=inside, other=float("inf"))
                    dropped = tl.load(row_stats + num_rows + first_row + rows, mask=inside, other=float("-inf"))
                    place = (batch, batch_head, start_q, num_queries, num_keys)
                    scores, keep = scores_and_keep(q, k, draw, place, start_k, PATTERN, False, BLOCK_M, BLOCK_N, UPCAST)
                    logits = masked_logits(
                        scores, keep, (dropped - log_sum)[:, None], scale, log_sum[:, None], place, start_k,
                        head_bias, bias_strides,
                        PATTERN, BIAS, BIAS_PER_QUERY, False, BLOCK_M, BLOCK_N, LAST, True,
                    )  # fmt: skip
                    attn = exponential(logits, True)
                    value_acc += product(rounded(attn, do.dtype, UPCAST).trans(), do, UPCAST)
                    grad_attn = product(do, v.trans(), UPCAST)
                    row_delta = tl.load(delta + first_row + rows, mask=inside, other=0.0)
                    # In a row that has lost all its keys, the dropped ones have weights, but no gradient.
                    passing = tl.where(dropped > float("-inf"), 0.0, 1.0)
                    grad_logits = rounded(
                        attn * (grad_attn * passing[:, None] - (row_delta * passing)[:, None]), q.dtype, UPCAST
                    )
                    key_acc += product(grad_logits.trans(), q, UPCAST)
                    added = product(grad_logits, k, UPCAST)
                    sums = partial + (part.to(tl.int64) * num_rows + first_row) * BLOCK_DIM + places
                    added += tl.load(sums, mask=(inside & (start_k > first_k))[:, None], other=0.0)
                    if LAST and IS_WHOLE:
                        store_rows(
                            grad_query, grad_query_strides, batch, head, start_q, rows, num_queries,
                            added * logit_scale, DIM, BLOCK_DIM, UPCAST,
                        )  # fmt: skip
                    else:
                        tl.store(sums, added, mask=inside[:, None])
            tl.debug_barrier()  # another thread may read what this one has added
            store_rows(
                grad_key, grad_key_strides, batch, kv_head, start_k, cols, num_keys, key_acc * logit_scale,
                DIM, BLOCK_DIM, UPCAST,
            )  # fmt: skip
            store_rows(
                grad_value, grad_value_strides, batch, kv_head, start_k, cols, num_keys, value_acc,
                VALUE_DIM, BLOCK_VALUE_DIM, UPCAST,
            )  # fmt: skip


@triton.jit(do_not_specialize=["num_heads", "num_queries", "num_rows", "num_parts"])
def sum_kernel(
    partial, grad_query, logit_scale, grad_query_strides, num_heads, num_queries, num_rows, num_parts,
    UPCAST: tl.constexpr, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Write ``grad_query``, the scaled sum of the parts, in their order."""
    num_tiles = tl.cdiv(num_queries, BLOCK_M)
    batch_head = tl.program_id(0) // num_tiles
    start_q = tl.program_id(0) % num_tiles * BLOCK_M
    batch, head = (batch_head // num_heads).to(tl.int64), (batch_head % num_heads).to(tl.int64)
    rows = tl.arange(0, BLOCK_M)
    places = rows[:, None] * BLOCK_DIM + tl.arange(0, BLOCK_DIM)[None, :]
    first_row, inside = batch_head.to(tl.int64) * num_queries + start_q, (start_q + rows < num_queries)[:, None]
    total = tl.zeros((BLOCK_M, BLOCK_DIM), tl.float32)
    for part in range(num_parts):
        total += tl.load(partial + (part * num_rows.to(tl.int64) + first_row) * BLOCK_DIM + places, mask=inside)
    store_rows(
        grad_query, grad_query_strides, batch, head, start_q, rows, num_queries, total * logit_scale,
        DIM, BLOCK_DIM, UPCAST,
    )  # fmt: skip
