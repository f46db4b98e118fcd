"""Maps made smaller: patches joined to square cells, so that a map of any image can be kept and looked at."""

import torch
from torch import Tensor

from dropkey.diagnostics.token_grid import TokenGrid

__all__ = ["pool"]


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


def _summed(attn: Tensor, cells: Tensor, axis: int) -> Tensor:
    shape = list(attn.shape)
    shape[axis] = int(cells.max()) + 1
    return torch.zeros(shape, dtype=attn.dtype, device=attn.device).index_add_(axis, cells, attn)
