"""Maps made smaller: patches joined to square cells, so that a map of any image can be kept and looked at."""

import torch
from torch import Tensor

from dropkey.diagnostics.token_grid import TokenGrid
from dropkey.diagnostics.windows import WindowPlaces

__all__ = ["pool", "pool_windows"]


def pool(attn: Tensor, queries: TokenGrid, keys: TokenGrid, query_cell: int, key_cell: int) -> Tensor:
    """Return maps whose queries and keys are cells of patches; prefix tokens stay.

    The weight of a cell of keys is the sum of its keys', averaged over the queries of a cell: a row that sums to 1
    still does.

    Args:
        attn: (B, H, Nq, Nk).
        queries: where the queries lie.
        keys: where the keys lie.
        query_cell: side of the queries' cells, in patches.
        key_cell: side of the keys' cells.

    Returns:
        (B, H, Nq', Nk').
    """
    if key_cell > 1:
        attn = _summed(attn, keys.cells(key_cell).to(attn.device), -1)
    if query_cell > 1:
        cells = queries.cells(query_cell).to(attn.device)
        attn = _summed(attn, cells, -2) / cells.bincount()[:, None]
    return attn


def pool_windows(attn: Tensor, places: WindowPlaces, grid: TokenGrid, cell: int) -> Tensor:
    """Return maps of windows (W, H, n, n) as maps over cells of the whole image, (1, H, cells, cells).

    What ``pool`` makes of ``places.on_image(attn)``, without that map in memory.
    """
    count = grid.cells(cell).bincount().to(attn.device)
    cells = torch.cat([grid.cells(cell), torch.tensor([len(count)])])[places.patches].to(
        attn.device
    )  # padding: one more
    result = attn.new_zeros((attn.shape[1], len(count) + 1, len(count) + 1))
    for window, its_cells in zip(attn, cells, strict=True):
        of_keys = window.new_zeros((*window.shape[:2], len(count) + 1)).index_add_(-1, its_cells, window)
        result.index_add_(1, its_cells, of_keys)
    return (result[:, :-1, :-1] / count[:, None])[None]


def _summed(attn: Tensor, cells: Tensor, axis: int) -> Tensor:
    shape = list(attn.shape)
    shape[axis] = int(cells.max()) + 1
    return torch.zeros(shape, dtype=attn.dtype, device=attn.device).index_add_(axis, cells, attn)
