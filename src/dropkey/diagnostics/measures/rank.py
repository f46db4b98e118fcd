"""How many directions an attention map has."""

import torch
from torch import Tensor

__all__ = ["effective_rank"]


def effective_rank(attn: Tensor) -> Tensor:
    """Return the effective rank of each head's map.

    exp(-sum over k of p[k] * log(p[k])), with p = singular values of the map / their sum

    Args:
        attn: (B, H, Nq, Nk), floating. Takes time cubic in the number of tokens.

    Returns:
        (B, H) in [1, min(Nq, Nk)]: 1 where all queries attend alike.

    Example:
        >>> effective_rank(torch.eye(4).view(1, 1, 4, 4)).round(decimals=4).item()
        4.0

    Source: Roy and Vetterli, 2007, "The effective rank".
    """
    # In float64: rounding errors of many small singular values would add up to a direction that is not there.
    values = torch.linalg.svdvals(attn.to(torch.float64))
    shares = values / values.sum(-1, keepdim=True)
    rank: Tensor = torch.special.entr(shares).sum(-1).exp()
    return rank.to(attn.dtype)
