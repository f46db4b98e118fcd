"""Attention maps of windows as maps over the whole image."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dropkey.errors import ArgumentError

__all__ = ["Places", "WindowPlaces"]


class Places(NamedTuple):
    """Where the tokens of windows lie.

    Args:
        grid: (rows, cols) of the patches that these tokens are.
        patches: int64 (W, n), for every token of every window its patch, row by row; -1 where it is padding.
    """

    grid: tuple[int, int]
    patches: Tensor


class WindowPlaces(NamedTuple):
    """Where the windows of one attention module lie on an image.

    Args:
        queries: each patch is the query of one window.
        keys: patches may be the key of several windows, where these overlap, and are smaller than those of the queries
            where these are pooled.
    """

    queries: Places
    keys: Places

    def on_image(self, maps: Tensor, queries: Sequence[int] | None = None) -> Tensor:
        """Return maps of windows as maps over the patches of the image; patches of other windows weigh 0.

        Args:
            maps: (B * W, H, Nq, Nk), as ``dropkey.capture`` gives them.
            queries: which patches, row by row; all by default.

        Returns:
            (B, H, patches of the queries' grid or as many as queries, patches of the keys' grid).

        Raises:
            ArgumentError: maps of other windows, or patches that are none.
        """
        (windows, num_queries), num_keys = self.queries.patches.shape, self.keys.patches.shape[1]
        if len(maps) % windows or maps.shape[2:] != (num_queries, num_keys):
            raise ArgumentError(
                f"these are {windows} windows of {num_queries} queries and {num_keys} keys an image, "
                f"got maps of shape {tuple(maps.shape)}"
            )
        count, key_count = math.prod(self.queries.grid), math.prod(self.keys.grid)
        chosen = range(count) if queries is None else queries
        if not all(0 <= query < count for query in chosen):
            raise ArgumentError(f"queries must be patches 0 to {count - 1}, got {list(chosen)}")
        patches = self.queries.patches.flatten().to(maps.device)
        of_patch = torch.full((count,), -1, device=maps.device)
        of_patch[patches[patches >= 0]] = torch.arange(len(patches), device=maps.device)[patches >= 0]
        asked = of_patch[torch.as_tensor(list(chosen), device=maps.device)]
        window, token = asked // num_queries, asked % num_queries
        rows = maps.reshape(-1, windows, *maps.shape[1:])[:, window, :, token]  # (queries, B, H, Nk)
        keys = self.keys.patches.to(maps.device)[window]  # (queries, Nk)
        result = maps.new_zeros((*rows.shape[:3], key_count + 1))
        result.scatter_(3, keys.where(keys >= 0, key_count)[:, None, None].expand_as(rows), rows)
        return result[..., :key_count].permute(1, 2, 0, 3)
