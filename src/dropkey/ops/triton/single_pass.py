"""The backward pass in one kernel: logits, weights and mask are computed once for all three gradients.

A program takes the keys of one head (or a part of them) tile by tile, and all queries for each. The gradients of its
keys and values stay in registers; that of the queries is summed up in memory, in float32, by this program alone: no
atomics, so the same call gives the same bits.
"""

import triton
import triton.language as tl

from dropkey.ops.triton.logits import (
    exponential,
    load_rows,
    masked_logits,
    product,
    rounded,
    scores_and_keep,
    store_rows,
    threshold_of,
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
    CAUSAL: tl.constexpr, UPCAST: tl.constexpr, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr, BLOCK_VALUE_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Write the gradients of a part of the keys of one head, and what they add to that of the queries.

    A part are ``part_size`` keys, a multiple of BLOCK_N. Where it is all keys, the gradient of the queries is written;
    else its sum so far is left in ``partial`` (parts, B * H, Nq, BLOCK_DIM), float32, for ``sum_kernel``.
    """
    num_parts = tl.cdiv(num_keys, part_size)
    num_kv_heads = num_heads // GROUP
    part = tl.program_id(0) % num_parts
    batch = (tl.program_id(0) // num_parts // num_kv_heads).to(tl.int64)
    kv_head = (tl.program_id(0) // num_parts % num_kv_heads).to(tl.int64)
    draw = (kept, tl.load(seed), threshold_of(threshold))
    rows, cols = tl.arange(0, BLOCK_M), tile_keys(BLOCK_N)
    dims = tl.arange(0, BLOCK_DIM)[None, :]
    BASE_2: tl.constexpr = key.dtype.element_ty != tl.float32
    first_k, end_k = part * part_size, tl.minimum(num_keys, (part + 1) * part_size)
    for start_k in range(first_k, end_k, BLOCK_N):
        start_k = tl.multiple_of(start_k, 32)
        k = load_rows(key, key_strides, batch, kv_head, start_k, cols, num_keys, DIM, BLOCK_DIM)
        v = load_rows(value, value_strides, batch, kv_head, start_k, cols, num_keys, VALUE_DIM, BLOCK_VALUE_DIM)
        key_acc = tl.zeros((BLOCK_N, BLOCK_DIM), tl.float32)
        value_acc = tl.zeros((BLOCK_N, BLOCK_VALUE_DIM), tl.float32)
        is_last = start_k + BLOCK_N >= end_k
        first_q = 0
        if CAUSAL:
            first_q = start_k // BLOCK_M * BLOCK_M
        for head in range(kv_head * GROUP, kv_head * GROUP + GROUP):
            batch_head = batch * num_heads + head
            head_bias = bias
            if BIAS:
                head_bias += batch * bias_strides[0] + head * bias_strides[1]
            for start_q in range(first_q, num_queries, BLOCK_M):
                start_q = tl.multiple_of(start_q, BLOCK_M)
                q = load_rows(query, query_strides, batch, head, start_q, rows, num_queries, DIM, BLOCK_DIM)
                do = load_rows(
                    grad_out, grad_out_strides, batch, head, start_q, rows, num_queries, VALUE_DIM, BLOCK_VALUE_DIM
                )
                row, inside = batch_head * num_queries + start_q + rows, start_q + rows < num_queries
                # Beyond the last query the row sum is infinite, so that its weights are 0.
                log_sum = tl.load(row_stats + row, mask=inside, other=float("inf"))
                dropped = tl.load(row_stats + num_rows + row, mask=inside, other=float("-inf"))
                place = (batch, batch_head, start_q, num_queries, num_keys)
                scores, keep = scores_and_keep(q, k, draw, place, start_k, PATTERN, False, BLOCK_M, BLOCK_N, UPCAST)
                logits = masked_logits(
                    scores, keep, dropped[:, None], scale, place, start_k, head_bias, bias_strides,
                    PATTERN, BIAS, BIAS_PER_QUERY, CAUSAL, BLOCK_M, BLOCK_N, CAUSAL, BASE_2,
                )  # fmt: skip
                attn = exponential(logits - log_sum[:, None], BASE_2)
                value_acc += product(rounded(attn, do.dtype, UPCAST).trans(), do, UPCAST)
                grad_attn = product(do, v.trans(), UPCAST)
                row_delta = tl.load(delta + row, mask=inside, other=0.0)
                # In a row that has lost all its keys, the dropped ones have weights, but no gradient.
                passing = tl.where(dropped > float("-inf"), 0.0, 1.0)
                grad_logits = rounded(attn * passing[:, None] * (grad_attn - row_delta[:, None]), q.dtype, UPCAST)
                key_acc += product(grad_logits.trans(), q, UPCAST)
                added = product(grad_logits, k, UPCAST)
                sums = partial + ((part * num_rows + row) * BLOCK_DIM)[:, None] + dims
                # Before, keys beyond the diagonal have left nothing there.
                has_before = inside & (start_k > first_k)
                added += tl.load(sums, mask=has_before[:, None], other=0.0)
                if num_parts > 1 or (not is_last):
                    tl.store(sums, added, mask=inside[:, None])
                else:
                    store_rows(
                        grad_query, grad_query_strides, batch, head, start_q, rows, num_queries,
                        added * logit_scale, DIM, BLOCK_DIM, UPCAST,
                    )  # fmt: skip
        tl.debug_barrier()  # another thread may read what this one has added
        store_rows(
            grad_key, grad_key_strides, batch, kv_head, start_k, cols, num_keys, key_acc * logit_scale,
            DIM, BLOCK_DIM, UPCAST,
        )  # fmt: skip
        store_rows(
            grad_value, grad_value_strides, batch, kv_head, start_k, cols, num_keys, value_acc,
            VALUE_DIM, BLOCK_VALUE_DIM, UPCAST,
        )  # fmt: skip
