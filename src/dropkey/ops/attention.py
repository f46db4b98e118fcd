"""The face of the operation: ``attention`` and ``keep_mask``."""

import torch
from torch import Tensor

from dropkey.arguments import check_count
from dropkey.ops.autocast import autocast_like_sdpa
from dropkey.ops.call import AttentionCall, Draw, is_dropping
from dropkey.ops.dispatch import attend, draw_keep
from dropkey.ops.operands import broadcast, checked_call
from dropkey.ops.sdpa import plain
from dropkey.patterns import Pattern, named_pattern

__all__ = ["attention", "keep_mask"]


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    drop_ratio: float | Tensor = 0.0,
    pattern: str | Pattern = "element",
    attn_bias: Tensor | None = None,
    is_causal: bool = False,
    scale: float | Tensor | None = None,
    grid_size: tuple[int, int] | None = None,
    num_prefix_tokens: int = 0,
    seed: int | Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Attend with random keys dropped before the softmax.

    Dropped logits are replaced by a large negative number, so the kept weights of a query sum to 1: there is no
    1 / (1 - ratio). It drops whenever ``drop_ratio`` is positive: pass 0 at evaluation. With ratio 0 it is
    ``torch.nn.functional.scaled_dot_product_attention``, bit for bit. Under autocast inputs and output are of its type,
    as there.

    Args:
        query: (B, H, Nq, D), floating. A batch of 1 is shared by all images, a head by all heads, here and below.
        key: (B, Hkv, Nk, D); H is a multiple of Hkv, as in grouped-query attention.
        value: (B, Hkv, Nk, Dv).
        drop_ratio: share of keys dropped, 0 or in (0, 1) as far as 1/65536 resolves it; a float64 tensor of shape () in
            (0, 1) can be changed between the calls of a compiled function.
        pattern: "element", "column", "token", "block", "cross", or an object of ``dropkey.patterns``.
        attn_bias: bool (True = may be seen) or floating (added to the logits, may be learned), broadcastable to
            (B, H, Nq, Nk); or torch's CausalBias. False and numbers at or below -5000 forbid a key for good.
        is_causal: forbid keys after the query, aligned at the top left.
        scale: factor of the logits, ``D ** -0.5`` by default; a tensor of shape () may be learned.
        grid_size: (rows, cols) of the patch keys, for "block" and "cross".
        num_prefix_tokens: keys before the patch keys, for "block" and "cross".
        seed: 64-bit integer (NumPy's too) or integer tensor of shape (); None draws one from torch's generator of the
            query's device.
        backend: "auto" or a key of ``dropkey.backends()``.

    Returns:
        (B, H, Nq, Dv) in the query's dtype, its axes in memory in the order of the query's. A query whose allowed keys
        are all dropped gets the mean of its allowed values; one that has no allowed key, or whose logits have all
        overflowed to -inf, gets zeros.

    Raises:
        ArgumentError: shapes that do not fit, a ratio or seed that is none, an unknown pattern or backend, or
            torch.vmap without a word on randomness.
        BackendError: the backend asked for by name cannot run this call.

    Example:
        >>> q = k = v = torch.randn(2, 3, 5, 8)
        >>> attention(q, k, v, drop_ratio=0.3, seed=7).shape
        torch.Size([2, 3, 5, 8])

    Source: Li et al., DropKey for Vision Transformer, CVPR 2023 (arXiv 2208.02646). Departure: a dropped logit is
    replaced, not lowered, so that a query which has lost all its keys passes no gradient to query and key.
    """
    pattern = named_pattern(pattern)
    if not is_dropping(drop_ratio):
        if isinstance(query, Tensor) and query.is_nested:  # whatever torch makes of it
            return plain(AttentionCall(query, key, value, attn_bias, is_causal, scale, None))  # type: ignore[arg-type]
        return attend(checked_call(query, key, value, attn_bias, is_causal, scale), backend)
    query, key, value, attn_bias = autocast_like_sdpa(query, key, value, attn_bias)
    call = broadcast(checked_call(query, key, value, attn_bias, is_causal, scale))
    draw = Draw.of(pattern, drop_ratio, seed, query.device, grid_size, num_prefix_tokens)
    return attend(call._replace(draw=draw), backend)


def keep_mask(
    batch: int,
    num_heads: int,
    num_queries: int,
    num_keys: int,
    *,
    drop_ratio: float | Tensor,
    pattern: str | Pattern = "element",
    seed: int | Tensor | None = None,
    grid_size: tuple[int, int] | None = None,
    num_prefix_tokens: int = 0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return the mask that ``attention`` uses with the same seed, ratio and pattern, on whichever backend.

    Returns:
        bool tensor (batch, num_heads, num_queries, num_keys) on ``device``; True = the query sees the key.

    Raises:
        ArgumentError: as ``attention``.

    Example:
        >>> keep_mask(1, 1, 2, 6, drop_ratio=0.5, seed=8).int()
        tensor([[[[1, 1, 1, 0, 1, 1],
                  [1, 0, 1, 0, 0, 0]]]], dtype=torch.int32)
    """
    sizes = {"batch": batch, "num_heads": num_heads, "num_queries": num_queries, "num_keys": num_keys}
    batch, num_heads, num_queries, num_keys = (check_count(name, size) for name, size in sizes.items())
    shape = (batch, num_heads, num_queries, num_keys)
    pattern, device = named_pattern(pattern), torch.device(device)
    if not is_dropping(drop_ratio):
        return torch.ones(shape, dtype=torch.bool, device=device)
    draw = Draw.of(pattern, drop_ratio, seed, device, grid_size, num_prefix_tokens)
    return draw_keep(draw, shape).expand(shape).contiguous()
