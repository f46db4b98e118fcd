"""Re-attention in NumPy, float64, from the formulas alone: nothing is imported from the package."""

import numpy as np

__all__ = ["batch_normalized", "layer_normalized", "mixed", "similarity"]


def mixed(attn, theta, bias=None):
    """attn (B, H, Nq, Nk) -> the same shape; map h is the sum over g of theta[h, g] * attn[g], plus bias[h]."""
    out = np.zeros_like(attn)
    for h in range(theta.shape[0]):
        for g in range(theta.shape[1]):
            out[:, h] += theta[h, g] * attn[:, g]
        if bias is not None:
            out[:, h] += bias[h]
    return out


def batch_normalized(maps, weight, bias, mean=None, var=None, eps=1e-5):
    """Every head over images, queries and keys; with the statistics of the batch unless some are given."""
    out = np.empty_like(maps)
    for h in range(maps.shape[1]):
        m = maps[:, h].mean() if mean is None else mean[h]
        v = maps[:, h].var() if var is None else var[h]
        out[:, h] = (maps[:, h] - m) / np.sqrt(v + eps) * weight[h] + bias[h]
    return out


def layer_normalized(maps, weight, bias, eps=1e-5):
    """Every (image, query, key) over the heads."""
    m, v = maps.mean(axis=1, keepdims=True), maps.var(axis=1, keepdims=True)
    per_head = (slice(None), None, None)
    return (maps - m) / np.sqrt(v + eps) * weight[per_head] + bias[per_head]


def similarity(maps, num_pairs):
    """Mean over pairs, images, queries and keys of the cosine between the vectors of heads."""
    cosines = []
    for pair in range(num_pairs):
        one, other = maps[pair], maps[pair + 1]
        dots = (one * other).sum(axis=1)
        norms = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
        cosines.append((dots / norms).mean())
    return np.mean(cosines)
