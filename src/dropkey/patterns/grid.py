"""The base of the patterns on the patch grid."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dropkey.errors import ArgumentError
from dropkey.patterns.element import Element
from dropkey.patterns.geometry import Geometry
from dropkey.patterns.pattern import Pattern

__all__ = ["GridPattern"]


@dataclass(frozen=True)
class GridPattern(Pattern):
    """Base of the patterns that are drawn on the patch grid; a subclass defines ``keep_patches`` in place of ``keep``.

    Prefix tokens have no place on the grid: they are drawn as by ``Element``, from its own stream.
    """

    needs_grid: ClassVar[bool] = True

    def check(self, geometry: Geometry) -> None:
        if geometry.grid_size is None:
            raise ArgumentError(f"pattern {self.name!r} needs grid_size=(rows, cols), the shape of the patch grid")
        rows, cols = geometry.grid_size
        if rows < 1 or cols < 1 or rows * cols + geometry.num_prefix_tokens != geometry.num_keys:
            raise ArgumentError(
                f"grid_size {rows} x {cols} and {geometry.num_prefix_tokens} prefix tokens do not make "
                f"{geometry.num_keys} keys: pass the grid_size and num_prefix_tokens of this input"
            )

    def keep(self, seed: Tensor, drop_ratio: Tensor, geometry: Geometry) -> Tensor:
        return self._after_prefix(self.keep_patches(seed, drop_ratio, geometry), seed, drop_ratio, geometry)

    def keep_patches(self, seed: Tensor, drop_ratio: Tensor, geometry: Geometry) -> Tensor:
        """Draw the part of a keep mask that belongs to the patches.

        Args:
            seed: as for ``keep``.
            drop_ratio: as for ``keep``.
            geometry: with a grid that fits the keys.

        Returns:
            bool tensor (B, H, Nq, rows * cols), row by row.
        """
        raise NotImplementedError

    @staticmethod
    def _after_prefix(keep_patches: Tensor, seed: Tensor, drop_ratio: Tensor, geometry: Geometry) -> Tensor:
        if not geometry.num_prefix_tokens:
            return keep_patches
        prefix = geometry._replace(num_keys=geometry.num_prefix_tokens)
        return torch.cat([Element().keep(seed, drop_ratio, prefix), keep_patches], dim=-1)
