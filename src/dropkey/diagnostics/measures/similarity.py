"""How alike heads, layers and the features of blocks are: what collapse looks like."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from dropkey.errors import ArgumentError

__all__ = [
    "cross_layer_similarity",
    "feature_similarity",
    "head_similarity",
    "similar_blocks",
    "similarity_of_columns",
    "unit_columns",
]


def head_similarity(attn: Tensor) -> Tensor:
    """Return how alike the map of each head is to those of the other heads of its block.

    mean over other heads g of the cosine of the angle between map h and map g, both as vectors of Nq * Nk weights

    Args:
        attn: (B, H, Nq, Nk), floating.

    Returns:
        (B, H) in [-1, 1], in [0, 1] for weights that are not negative; NaN where there is one head.

    Example:
        >>> head_similarity(torch.ones(1, 3, 2, 2)).tolist()
        [[1.0, 1.0, 1.0]]

    Source: the cosine of maps, as DeepViT has it for layers (Zhou et al., 2021, arXiv 2103.11886).
    """
    maps = normalize(attn.flatten(2), dim=-1)
    cosines = maps @ maps.mT
    return (cosines.sum(-1) - cosines.diagonal(dim1=-2, dim2=-1)) / (attn.shape[1] - 1)


def cross_layer_similarity(maps: Sequence[Tensor]) -> Tensor:
    """Return how alike the maps of every pair of blocks are.

    mean over images, heads h and keys t of the cosine of the angle between column t of head h in block p and in block q

    A column says how much every query attends to that key. Heads are compared in their order.

    Args:
        maps: of each block, in order: (B, H, Nq, Nk), all of one shape.

    Returns:
        (L, L), symmetric, in [-1, 1], in [0, 1] for weights that are not negative.

    Raises:
        ArgumentError: maps of different shapes, or none.

    Source: Zhou et al., DeepViT, 2021 (arXiv 2103.11886), equation 2.
    """
    _check_one_shape("maps", maps)
    total = torch.zeros((len(maps), len(maps)), dtype=maps[0].dtype, device=maps[0].device)
    batch, heads = maps[0].shape[:2]
    for image, head in itertools.product(range(batch), range(heads)):  # so that no copy of all maps is made
        total += similarity_of_columns(unit_columns([each[image, head] for each in maps]))
    return total / (batch * heads)


def unit_columns(maps: Sequence[Tensor]) -> Tensor:
    """Return the maps (Nq, Nk) of one head in every block as (L, Nq, Nk), each column divided by its norm."""
    return normalize(torch.stack(list(maps)), dim=-2)


def similarity_of_columns(columns: Tensor) -> Tensor:
    """Return the mean cosine of the columns of every pair of blocks, (L, L), from what ``unit_columns`` gives."""
    flat = columns.flatten(1)
    return flat @ flat.T / columns.shape[-1]


def similar_blocks(maps: Sequence[Tensor], threshold: float = 0.5, share: float = 0.9) -> list[bool]:
    """Return which blocks attend as the block before does: the measure of attention collapse.

    Two maps are compared by the columns of each image, head and key: how much every query attends to that key. Heads
    are compared in their order: two blocks that do the same with other heads do not count as similar. ``sum`` of it is
    the number of similar blocks.

    Args:
        maps: of each block, in order: (B, H, Nq, Nk), all of one shape.
        threshold: cosine similarity above which two columns are alike, in [-1, 1].
        share: two blocks are similar if more than this share of their columns are alike, in [0, 1].

    Returns:
        One bool for each block but the first.

    Source: Zhou et al., DeepViT, 2021 (arXiv 2103.11886). Its threshold is not given: choose several.
    """
    alike = (cosine_similarity(one, other, dim=2) > threshold for one, other in itertools.pairwise(maps))
    return [columns.double().mean().item() > share for columns in alike]


def feature_similarity(features: Sequence[Tensor]) -> Tensor:
    """Return how alike the features are that every pair of blocks puts out.

    mean over images and tokens of the cosine of the angle between a token's features after block p and after block q

    In deep plain ViTs the features of the top blocks become nearly identical.

    Args:
        features: of each block, in order: (B, N, C), all of one shape.

    Returns:
        (L, L), symmetric, in [-1, 1].

    Raises:
        ArgumentError: features of different shapes, or none.

    Source: Zhou et al., DeepViT, 2021 (arXiv 2103.11886), figure 3.
    """
    _check_one_shape("features", features)
    total = torch.zeros((len(features), len(features)), dtype=features[0].dtype, device=features[0].device)
    batch, tokens = features[0].shape[:2]
    for image in range(batch):
        each = normalize(torch.stack([feature[image] for feature in features]), dim=-1).flatten(1)
        total += each @ each.T / tokens
    return total / batch


def _check_one_shape(what: str, tensors: Sequence[Tensor]) -> None:
    shapes = sorted({tuple(each.shape) for each in tensors})
    if len(shapes) != 1:
        found = f"shapes {', '.join(map(str, shapes))}" if shapes else "none"
        raise ArgumentError(f"{what} of different blocks are compared if they are of one shape, got {found}")
