"""Which tokens of an attention call are patches, and where on the image they lie."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["TokenGrid", "grid_by_shape"]


@dataclass(frozen=True)
class TokenGrid:
    """Tokens in order: some before the patches, then the patches row by row; or tokens that lie nowhere.

    Args:
        size: (rows, cols) of the patches, or None if it is not known that there are any.
        num_prefix: tokens before the patches; of tokens that lie nowhere all of them.
    """

    size: tuple[int, int] | None
    num_prefix: int

    @property
    def num_tokens(self) -> int:
        """How many there are."""
        return self.num_prefix + (self.size[0] * self.size[1] if self.size else 0)

    def cell_for(self, max_patches: int) -> int:
        """Return the smallest side of square cells, in patches, of which there are ``max_patches`` at most."""
        if self.size is None:
            return 1
        return next(cell for cell in range(1, max(self.size) + 1) if math.prod(self.pooled(cell)) <= max_patches)

    def pooled(self, cell: int) -> tuple[int, int]:
        """Return (rows, cols) of cells; those at the right and bottom may be cut."""
        assert self.size is not None
        return math.ceil(self.size[0] / cell), math.ceil(self.size[1] / cell)

    def cells(self, cell: int) -> Tensor:
        """Return the cell of every token, int64 (tokens,): prefix tokens are their own."""
        prefix = torch.arange(self.num_prefix)
        if self.size is None:
            return prefix
        rows, cols = self.size
        by_row = torch.arange(rows)[:, None] // cell * self.pooled(cell)[1] + torch.arange(cols) // cell
        return torch.cat([prefix, self.num_prefix + by_row.flatten()])


def grid_by_shape(
    num_tokens: int, num_prefix: int, known: tuple[int, int] | None, image: tuple[int, int] | None
) -> TokenGrid:
    """Return where tokens lie: on the grid that is known, if it has as many, or else on one of the image's shape.

    Args:
        num_tokens: of the call.
        num_prefix: tokens before the patches, as the model says.
        known: (rows, cols) as the model says.
        image: (height, width); None if these tokens need not be patches.
    """
    for prefix in dict.fromkeys((num_prefix, 0)):
        for size in _candidates(num_tokens - prefix, known, image):
            if size[0] * size[1] + prefix == num_tokens:
                return TokenGrid(size, prefix)
    return TokenGrid(None, num_tokens)


def _candidates(
    num_patches: int, known: tuple[int, int] | None, image: tuple[int, int] | None
) -> Iterator[tuple[int, int]]:
    if known is not None:
        yield known
    if image is not None and num_patches > 3:  # one to three tokens are no picture
        rows = round(math.sqrt(num_patches * image[0] / image[1]))
        yield rows, num_patches // max(rows, 1)
