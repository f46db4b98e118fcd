"""How far queries look."""

import torch
from torch import Tensor

from dropkey.errors import ArgumentError

__all__ = ["attention_distance"]


def attention_distance(attn: Tensor, grid_size: tuple[int, int], num_prefix_tokens: int = 0) -> Tensor:
    """Return how far away the patches lie that each head attends to, in patches, averaged over the queries.

    mean over patches i of (sum over patches j of attn[i, j] * |place i - place j|) / (sum over patches j of attn[i, j])

    Prefix tokens lie nowhere: they are left out as queries and as keys. So is a query that sees no patch at all.

    Args:
        attn: (B, H, N, N), floating; prefix tokens first, then the patches row by row.
        grid_size: (rows, cols) of the patches.
        num_prefix_tokens: class, register and distillation tokens before the patches.

    Returns:
        (B, H) in patches, from 0 to the grid's diagonal sqrt((rows - 1)^2 + (cols - 1)^2).

    Raises:
        ArgumentError: another number of tokens than grid and prefix say.

    Example:
        >>> attention_distance(torch.full((1, 1, 2, 2), 0.5), grid_size=(1, 2)).item()
        0.5

    Source: Dosovitskiy et al., 2021 (arXiv 2010.11929), "mean attention distance", there in pixels.
    """
    rows, cols = grid_size
    tokens = rows * cols + num_prefix_tokens
    if tuple(attn.shape[-2:]) != (tokens, tokens):
        raise ArgumentError(
            f"a grid of {rows} x {cols} and {num_prefix_tokens} prefix tokens has maps of {tokens} x {tokens}, got "
            f"{tuple(attn.shape[-2:])}"
        )
    places = torch.cartesian_prod(
        torch.arange(rows, device=attn.device, dtype=attn.dtype),
        torch.arange(cols, device=attn.device, dtype=attn.dtype),
    )
    apart = torch.linalg.vector_norm(places[:, None] - places, dim=-1)
    patches = attn[..., num_prefix_tokens:, num_prefix_tokens:]
    seen = patches.sum(-1)
    away: Tensor = (patches * apart).sum(-1) / seen
    return torch.nanmean(torch.where(seen == 0, torch.nan, away), -1)
