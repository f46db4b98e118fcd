"""Attention with dropped keys, one row at a time in float64, and its gradient by the chain rule written out."""

import numpy as np


def attention(query, key, value, keep, allowed=None, bias=None, scale=None):
    """All arrays (B, H, N, D) and (B, H, Nq, Nk), as many key heads as query heads. Returns out and the weights."""
    query, key, value = (np.asarray(x, dtype=np.float64) for x in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    logits = scale * np.einsum("bhqd,bhkd->bhqk", query, key)
    if bias is not None:
        logits = logits + np.where(np.isfinite(bias), bias, 0)
    attn = np.zeros(keep.shape)
    for where in np.ndindex(keep.shape[:3]):
        may = np.ones(keep.shape[3], dtype=bool) if allowed is None else allowed[where]
        seen = may & keep[where]
        if seen.any():
            row = np.exp(logits[where][seen] - logits[where][seen].max())
            attn[where][seen] = row / row.sum()
        elif may.any():  # every allowed key is dropped: uniform over the allowed ones
            attn[where][may] = 1 / may.sum()
    return np.einsum("bhqk,bhkd->bhqd", attn, value), attn


def gradients(query, key, value, keep, grad_out, allowed=None, bias=None, scale=None):
    """Gradients of sum(out * grad_out) for query, key, value and the logits (the latter is the bias' gradient)."""
    query, key, value, grad_out = (np.asarray(x, dtype=np.float64) for x in (query, key, value, grad_out))
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    _, attn = attention(query, key, value, keep, allowed, bias, scale)
    grad_attn = np.einsum("bhqd,bhkd->bhqk", grad_out, value)
    grad_logits = attn * (grad_attn - (attn * grad_attn).sum(-1, keepdims=True))
    seen = keep if allowed is None else keep & allowed
    grad_logits = grad_logits * seen  # a replaced logit passes nothing on, in an empty row too
    grad_query = scale * np.einsum("bhqk,bhkd->bhqd", grad_logits, key)
    grad_key = scale * np.einsum("bhqk,bhqd->bhkd", grad_logits, query)
    grad_value = np.einsum("bhqk,bhqd->bhkd", attn, grad_out)
    return grad_query, grad_key, grad_value, grad_logits


def attention_at_once(query, key, value, keep, allowed, bias=0.0, scale=1.0):
    """``attention`` for whole arrays, where row by row takes too long; also logits that overflow to -inf."""
    logits = scale * np.einsum("bhqd,bhkd->bhqk", query, key) + np.where(allowed, bias, 0.0)
    seen = keep & allowed & (logits > -np.inf)
    highest = np.where(seen, logits, -np.inf).max(-1, keepdims=True)
    weight = np.exp(np.where(seen, logits - np.where(np.isfinite(highest), highest, 0.0), -np.inf))
    lost = allowed & ~(keep & allowed).any(-1, keepdims=True)  # every allowed key is dropped: uniform over them
    weight = np.where(lost, 1.0, weight)
    attn = weight / np.maximum(weight.sum(-1, keepdims=True), 1e-300)
    return np.einsum("bhqk,bhkd->bhqd", attn, value), attn, logits


def gradients_at_once(query, key, value, keep, allowed, grad_out, bias=0.0, scale=1.0):
    """Output, and gradients of query, key, value, logits and scale."""
    out, attn, _ = attention_at_once(query, key, value, keep, allowed, bias, scale)
    grad_attn = np.einsum("bhqd,bhkd->bhqk", grad_out, value)
    # Relative to the likeliest key, or a weight of nearly 1 would take all of its product away.
    likeliest = attn.argmax(-1, keepdims=True) if attn.size else np.zeros((*attn.shape[:3], 1), dtype=int)
    grad_attn = grad_attn - np.take_along_axis(grad_attn, likeliest, -1)
    grad_logits = attn * (grad_attn - (attn * grad_attn).sum(-1, keepdims=True)) * (keep & allowed)
    grad_query = scale * np.einsum("bhqk,bhkd->bhqd", grad_logits, key)
    grad_key = scale * np.einsum("bhqk,bhqd->bhkd", grad_logits, query)
    grad_value = np.einsum("bhqk,bhqd->bhkd", attn, grad_out)
    return out, grad_query, grad_key, grad_value, grad_logits, (grad_query * query).sum() / scale
