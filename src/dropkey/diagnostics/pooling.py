"""Maps made smaller: patches joined to square cells, so that a map of any image can be kept and looked at."""

import torch
from torch import Tensor

from dropkey.diagnostics.token_grid import TokenGrid
from dropkey.diagnostics.windows import Places, WindowPlaces

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


def pool_windows(attn: Tensor, places: WindowPlaces, query_cell: int, key_cell: int) -> Tensor:
    """Return maps of windows (W, H, Nq, Nk) as maps over cells of the whole image, (1, H, cells, cells).

    What ``pool`` makes of ``places.on_image(attn)``, without that map in memory.
    """
    queries, counts = _cells_of(places.queries, query_cell)
    keys, key_counts = _cells_of(places.keys, key_cell)
    result = attn.new_zeros((attn.shape[1], len(counts) + 1, len(key_counts) + 1))
    for window, its_queries, its_keys in zip(attn, queries.to(attn.device), keys.to(attn.device), strict=True):
        of_keys = window.new_zeros((*window.shape[:2], len(key_counts) + 1)).index_add_(-1, its_keys, window)
        result.index_add_(1, its_queries, of_keys)
    return (result[:, :-1, :-1] / counts.to(attn.device)[:, None])[None]


def _cells_of(places: Places, cell: int) -> tuple[Tensor, Tensor]:
    """Return the cell of every token of every window, (W, n), one more for padding; and how many patches cells have."""
    cells = TokenGrid(places.grid, 0).cells(cell)
    counts = cells.bincount()
    return torch.cat([cells, torch.tensor([len(counts)])])[places.patches], counts


def _summed(attn: Tensor, cells: Tensor, axis: int) -> Tensor:
    shape = list(attn.shape)
    shape[axis] = int(cells.max()) + 1
    return torch.zeros(shape, dtype=attn.dtype, device=attn.device).index_add_(axis, cells, attn)
