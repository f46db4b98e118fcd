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
