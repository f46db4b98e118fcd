"""How the output of an attention lies in memory: dense, its axes in the order in which those of the query lie.

So a model that merges or splits heads by ``view`` can do so whatever backend has run, in training as in evaluation.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["axes_in_memory", "laid_out", "output_strides"]


def axes_in_memory(sizes: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    """Return the axes of an output from the outermost to the innermost in memory.

    They are those of the query by falling stride. Axes that say nothing (expanded ones, with stride 0, and those of one
    entry) stand where (B, H, N, D) has them.

    Args:
        sizes: of the query (B, H, N, D), as the backend gets it.
        strides: of the query.

    Example:
        >>> query = torch.empty(2, 5, 3, 8).transpose(1, 2)
        >>> axes_in_memory(query.shape, query.stride())
        (0, 2, 1, 3)
        >>> query = torch.empty(2, 1, 5, 8).expand(2, 3, 5, 8)
        >>> axes_in_memory(query.shape, query.stride())
        (0, 1, 2, 3)
    """
    batch, head, token, channel = strides
    if channel == 1:  # the two most common, recognized quickly
        if batch >= head >= token >= 1:
            return 0, 1, 2, 3
        if batch > token > head > 1:
            return 0, 2, 1, 3
    telling = [axis for axis in range(4) if strides[axis] != 0 and sizes[axis] > 1]
    by_stride = iter(sorted(telling, key=lambda axis: -strides[axis]))
    return tuple(next(by_stride) if axis in telling else axis for axis in range(4))


def output_strides(
    output_sizes: Sequence[int], query_sizes: Sequence[int], query_strides: Sequence[int]
) -> tuple[int, ...]:
    """Return the strides of an output (B, H, N, D') that lies in memory like the query (B, H, N, D)."""
    axes = axes_in_memory(query_sizes, query_strides)
    dense = _dense_strides([output_sizes[axis] for axis in axes])
    return tuple(dense[axes.index(axis)] for axis in range(4))


def laid_out(out: Tensor, query: Tensor) -> Tensor:
    """Return an output (B, H, N, D) laid out like the query: itself where it lies like that already."""
    axes = axes_in_memory(query.shape, query.stride())
    in_order = out.permute(axes)
    if in_order.stride() == _dense_strides(in_order.shape):
        return out
    return in_order.clone(memory_format=torch.contiguous_format).permute(_inverse(axes))


def _dense_strides(sizes: Sequence[int]) -> tuple[int, ...]:
    """Strides of a new tensor, those of axes of one entry included: ``is_contiguous`` does not look at them."""
    strides = [1]
    for size in reversed(sizes[1:]):
        strides.append(strides[-1] * max(size, 1))
    return tuple(reversed(strides))


def _inverse(axes: tuple[int, ...]) -> list[int]:
    return [axes.index(axis) for axis in range(4)]
