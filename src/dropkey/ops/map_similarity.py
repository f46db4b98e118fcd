"""How alike the attention maps of consecutive blocks are: a loss against attention collapse."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from dropkey.errors import ArgumentError

__all__ = ["map_similarity"]


def map_similarity(maps: Sequence[Tensor], num_pairs: int | None = None) -> Tensor:
    """Return the mean cosine similarity of the attention maps of consecutive blocks; differentiable.

    As released, two maps are compared at every (image, query, key) by the vector of their heads, and each pair of
    blocks counts the same. The released recipe adds 0.1 times this, over the first 12 pairs, to the loss of its
    32-block model.

    Args:
        maps: of each block, in order: (B, H, Nq, Nk), all of one shape.
        num_pairs: the first so many pairs only; all by default.

    Returns:
        () in [-1, 1].

    Raises:
        ArgumentError: fewer maps than the pairs need.

    Example:
        >>> attn = torch.rand(2, 3, 5, 5)
        >>> round(map_similarity([attn, attn, 2 * attn]).item(), 4)
        1.0

    Source: Zhou et al., DeepViT, 2021 (arXiv 2103.11886), released code.
    """
    available = len(maps) - 1
    wanted = available if num_pairs is None else num_pairs
    if not 1 <= wanted <= available:
        raise ArgumentError(f"{wanted} pairs of consecutive maps need {wanted + 1} maps or more, got {len(maps)}")
    pairs = itertools.pairwise(maps[: wanted + 1])
    return torch.stack([cosine_similarity(one, other, dim=1).mean() for one, other in pairs]).mean()
