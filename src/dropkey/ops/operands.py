"""From what users and models pass to a call that backends take: checked, and broadcast as torch's attention does.

Every call goes through here, whether ``dropkey.attention`` or a site of a model makes it.
"""

import sys
from typing import Any

import torch
from torch import Tensor, nn

from dropkey.arguments import check_flag, short
from dropkey.errors import ArgumentError
from dropkey.ops.call import AttentionCall

__all__ = ["broadcast", "checked_call", "dense_bias"]

_PLAIN = (Tensor, nn.Parameter)
_STRIDED = torch.strided


def checked_call(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_bias: Tensor | None = None,
    is_causal: bool = False,
    scale: float | Tensor | None = None,
    *,
    grouped: bool = True,
) -> AttentionCall:
    """Return a call that draws nothing yet and has the shapes it was given; ``broadcast`` makes them one.

    Args:
        query: (B or 1, H or 1, Nq, D), floating.
        key: (B or 1, heads, Nk, D); a key or value without leading axes is shared by all images, or heads.
        value: (B or 1, heads, Nk, Dv).
        attn_bias: bool or floating, broadcastable to (B, H, Nq, Nk); also torch's CausalBias.
        is_causal: forbid keys after the query.
        scale: of the logits; a tensor multiplies the query, so that it gets its gradient.
        grouped: whether H may be a multiple of the heads of key and value; otherwise these are H or 1.

    Raises:
        ArgumentError: names the tensor which does not fit the others.
    """
    _check_kinds(query, key, value)
    check_flag("is_causal", is_causal)
    if query.dim() != 4:
        raise ArgumentError(f"query must be (batch, heads, tokens, head_dim), got shape {tuple(query.shape)}")
    key, value = _with_four_axes("key", key), _with_four_axes("value", value)
    batch, heads, *_ = query.shape
    if not query.shape[:2] == key.shape[:2] == value.shape[:2]:
        batch, heads = _batch(query, key, value), _heads(query, key, value, grouped)
    if query.shape[3] != key.shape[3] or key.shape[2] != value.shape[2]:
        raise _does_not_fit(query, key, value, "query and key must agree in head_dim, key and value in tokens")
    if attn_bias is not None:
        mask_shape = (batch, heads, query.shape[2], key.shape[2])
        attn_bias, is_causal = _bias(attn_bias, is_causal, mask_shape, query.device)
    query, number = _scaled(query, scale)
    return AttentionCall(query, key, value, attn_bias, is_causal, number, None)


def broadcast(call: AttentionCall) -> AttentionCall:
    """Return a checked call as backends take it: one batch, and key and value of equally many heads.

    Nothing is copied, unless key and value are shared by different groups of heads; torch sums the gradients of what
    was expanded.
    """
    query, key, value = call.query, call.key, call.value
    batch = query.shape[0]
    if batch == key.shape[0] == value.shape[0] and query.shape[1] >= key.shape[1] == value.shape[1]:
        return call
    batch, heads = _batch(query, key, value), _heads(query, key, value, True)
    kv_heads = max(key.shape[1], value.shape[1])
    if min(key.shape[1], value.shape[1]) not in (1, kv_heads):
        key, value = (t.repeat_interleave(heads // t.shape[1], dim=1) for t in (key, value))
        kv_heads = heads
    query = query.expand(batch, heads, -1, -1)
    key, value = (tensor.expand(batch, kv_heads, -1, -1) for tensor in (key, value))
    return call._replace(query=query, key=key, value=value)


def _check_kinds(query: Tensor, key: Tensor, value: Tensor) -> None:
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if type(tensor) is not Tensor and not isinstance(tensor, Tensor):
            raise ArgumentError(f"{name} must be a tensor, got a {type(tensor).__name__}")
        if tensor.layout is not _STRIDED or tensor.is_nested:
            raise ArgumentError(
                f"{name} is a {_layout_name(tensor)} tensor, and keys are dropped in dense ones: pad it (nested ones "
                "have to_padded_tensor) and forbid the padding with attn_bias"
            )
        if not query.dtype.is_floating_point:
            raise ArgumentError(f"query must be of a floating type, got {query.dtype}")
        if tensor.dtype is not query.dtype or tensor.device != query.device:
            raise ArgumentError(
                f"{name} is {tensor.dtype} on {tensor.device}, query {query.dtype} on {query.device}: "
                "query, key and value must be of one floating type on one device"
            )


def _layout_name(tensor: Tensor) -> str:
    return "nested (jagged)" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")


def _with_four_axes(name: str, tensor: Tensor) -> Tensor:
    missing = 4 - tensor.dim()
    if not missing:
        return tensor
    if missing not in (1, 2):
        raise ArgumentError(f"{name} must be (batch, heads, tokens, head_dim), got shape {tuple(tensor.shape)}")
    return tensor[(None,) * missing]


def _batch(query: Tensor, key: Tensor, value: Tensor) -> int:
    sizes = (query.shape[0], key.shape[0], value.shape[0])
    batch = next((size for size in sizes if size != 1), 1)
    if any(size not in (1, batch) for size in sizes):
        raise _does_not_fit(query, key, value, "batches must agree, or be 1 to be shared")
    return batch


def _heads(query: Tensor, key: Tensor, value: Tensor, grouped: bool) -> int:
    heads, *others = (query.shape[1], key.shape[1], value.shape[1])
    if all(other in (1, heads) for other in others):
        return heads
    if heads == 1:  # shared by the heads of key and value
        heads = max(others)
        if all(other in (1, heads) for other in others):
            return heads
    elif grouped and all(other and heads % other == 0 for other in others):
        return heads
    if grouped and key.shape[1] == value.shape[1]:
        raise ArgumentError(f"{query.shape[1]} query heads are not a multiple of {key.shape[1]} key heads")
    hint = "heads must agree, or be 1 to be shared" + ("" if grouped else ", unless enable_gqa=True is passed")
    raise _does_not_fit(query, key, value, hint)


def _does_not_fit(query: Tensor, key: Tensor, value: Tensor, why: str) -> ArgumentError:
    shapes = f"query {tuple(query.shape)}, key {tuple(key.shape)} and value {tuple(value.shape)}"
    return ArgumentError(f"{shapes} do not fit: {why}")


def dense_bias(attn_bias: Any, is_causal: bool, lengths: tuple[int, ...], device: torch.device) -> tuple[Any, bool]:
    """Return a bias with torch's CausalBias written out, and whether keys after the query are forbidden.

    Raises:
        ArgumentError: a CausalBias for other numbers of queries and keys than ``lengths``.
    """
    is_usual = attn_bias is None or type(attn_bias) in _PLAIN
    causal = None if is_usual else sys.modules.get("torch.nn.attention.bias")  # slow to import
    if causal is None or not isinstance(attn_bias, causal.CausalBias):
        return attn_bias, is_causal
    if (attn_bias.seq_len_q, attn_bias.seq_len_kv) != lengths:
        made_for = f"{attn_bias.seq_len_q} queries and {attn_bias.seq_len_kv} keys"
        raise ArgumentError(f"attn_bias is for {made_for}, the call has {lengths[0]} and {lengths[1]}")
    if attn_bias.variant == causal.CausalVariant.UPPER_LEFT:
        return None, True
    return attn_bias._materialize(device), is_causal


def _bias(
    attn_bias: Any, is_causal: bool, mask_shape: tuple[int, ...], device: torch.device
) -> tuple[Tensor | None, bool]:
    """Return the bias with four axes, and whether keys after the query are forbidden."""
    attn_bias, is_causal = dense_bias(attn_bias, is_causal, mask_shape[2:], device)
    if attn_bias is None:
        return None, is_causal
    if not isinstance(attn_bias, Tensor):
        raise ArgumentError(f"attn_bias must be a tensor or None, got a {type(attn_bias).__name__}")
    if attn_bias.dtype is not torch.bool and not attn_bias.dtype.is_floating_point:
        raise ArgumentError(f"attn_bias must be bool (True = may be seen) or floating, got {attn_bias.dtype}")
    if attn_bias.layout is not torch.strided or attn_bias.device != device:
        raise ArgumentError(
            f"attn_bias is a {_layout_name(attn_bias)} tensor on {attn_bias.device}: it must be dense, on {device}"
        )
    missing = 4 - attn_bias.dim()
    sizes = (1,) * missing + tuple(attn_bias.shape)
    if missing < 0 or any(have not in (1, want) for have, want in zip(sizes, mask_shape, strict=True)):
        raise ArgumentError(
            f"attn_bias of shape {tuple(attn_bias.shape)} does not broadcast to (B, H, Nq, Nk) = {mask_shape}"
        )
    return attn_bias.reshape(sizes) if missing else attn_bias, is_causal


def _scaled(query: Tensor, scale: Any) -> tuple[Tensor, float]:
    if scale is None:
        return query, query.shape[3] ** -0.5 if query.shape[3] else 1.0
    if isinstance(scale, Tensor):
        if scale.numel() != 1 or scale.dtype.is_complex or not scale.dtype.is_signed:
            raise ArgumentError(f"scale must be one real number, got {scale.dtype} of shape {tuple(scale.shape)}")
        return query * scale.reshape(()), 1.0  # of shape (), so that it does not widen the query's type
    try:
        return query, float(None if isinstance(scale, str) else scale)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ArgumentError(f"scale must be a number or a tensor of one, got {short(scale)}") from None
