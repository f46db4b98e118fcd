"""How sharply queries attend: entropy and peak weight."""

import torch
from torch import Tensor

__all__ = ["entropy", "peak"]


def entropy(attn: Tensor) -> Tensor:
    """Return the entropy of each head's weights in nats, averaged over the queries.

    mean over i of -sum over j of attn[i, j] * log(attn[i, j])

    Args:
        attn: (B, H, Nq, Nk), floating; rows that sum to 1.

    Returns:
        (B, H) in [0, log(Nk)]: 0 where every query sees one key, log(Nk) where it sees all alike; NaN for maps with
        negative weights (Re-attention's).

    Example:
        >>> entropy(torch.full((1, 1, 4, 4), 0.25)).item() == torch.log(torch.tensor(4.0)).item()
        True

    Source: Shannon, 1948; of attention heads, Ghader and Monz, 2017 (arXiv 1710.03348).
    """
    nats: Tensor = torch.special.entr(attn).sum(-1).mean(-1)
    return torch.where(nats.isneginf(), torch.nan, nats)


def peak(attn: Tensor) -> Tensor:
    """Return the largest weight of a query, averaged over the queries.

    mean over i of max over j of attn[i, j]

    Args:
        attn: (B, H, Nq, Nk), floating.

    Returns:
        (B, H), in [1 / Nk, 1] for rows that sum to 1.

    Example:
        >>> peak(torch.eye(3).view(1, 1, 3, 3)).item()
        1.0

    Source: "confidence" of a head, Voita et al., 2019 (arXiv 1905.09418).
    """
    return attn.amax(-1).mean(-1)
