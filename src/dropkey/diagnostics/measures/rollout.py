"""Attention through all blocks: rollout, and its gradient-weighted form for a class."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dropkey.errors import ArgumentError

__all__ = ["class_rollout", "rolled", "rollout"]


def rollout(maps: Sequence[Tensor]) -> Tensor:
    """Return how much of every input token reaches every output token if attention alone mixed them.

    R = A'[L] @ ... @ A'[1], with A' = (mean over heads of A + I) / 2, its rows divided by their sums

    Args:
        maps: of each block, first to last: (B, H, N, N), floating, all of one N.

    Returns:
        (B, N, N) in [0, 1] for weights that are not negative; rows sum to 1. Row 0 is the class token's, if there is
        one.

    Raises:
        ArgumentError: no maps, or maps that are not square and of one size.

    Example:
        >>> rollout([torch.eye(3).view(1, 1, 3, 3)])[0].tolist() == torch.eye(3).tolist()
        True

    Source: Abnar and Zuidema, 2020 (arXiv 2005.00928).
    """
    _check_square(maps)
    result: Tensor | None = None
    for attn in maps:
        result = rolled(result, attn)
    assert result is not None
    return result


def rolled(before: Tensor | None, attn: Tensor) -> Tensor:
    """Return the rollout after one more block: ``before`` is (B, N, N), or None before the first block."""
    mixed = attn.mean(1) + torch.eye(attn.shape[-1], dtype=attn.dtype, device=attn.device)
    mixed = mixed / mixed.sum(-1, keepdim=True)
    return mixed if before is None else mixed @ before


def class_rollout(maps: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """Return how much every input token speaks for a class, by attention weights and their gradients.

    R = I, then for each block R = R + E @ R, with E = mean over heads of max(gradient * A, 0)

    Args:
        maps: of each block, first to last: (B, H, N, N), floating, all of one N.
        gradients: of the class' score with respect to these maps, of the same shapes.

    Returns:
        (B, N, N), not negative. Row 0 is the class token's, if there is one; its own entry says nothing.

    Raises:
        ArgumentError: no maps, maps that are not square and of one size, or gradients that do not fit.

    Source: Chefer et al., "Generic attention-model explainability", 2021 (arXiv 2103.15679), equations 5 and 6.
    """
    _check_square(maps)
    if [each.shape for each in maps] != [each.shape for each in gradients]:
        raise ArgumentError(f"{len(maps)} maps and {len(gradients)} gradients are not of the same shapes")
    result = torch.eye(maps[0].shape[-1], dtype=maps[0].dtype, device=maps[0].device).repeat(len(maps[0]), 1, 1)
    for attn, gradient in zip(maps, gradients, strict=True):
        result = result + (gradient * attn).clamp(min=0).mean(1) @ result
    return result


def _check_square(maps: Sequence[Tensor]) -> None:
    sizes = sorted({tuple(each.shape[-2:]) for each in maps})
    if len(sizes) != 1 or sizes[0][0] != sizes[0][1]:
        found = ", ".join(f"{rows} x {cols}" for rows, cols in sizes) or "no maps"
        raise ArgumentError(f"rollout needs maps of self-attention, all over the same tokens, got {found}")
