"""Keep masks drawn by the kernel: the same bits as the patterns draw in torch, many times faster."""

import torch
from torch import Tensor

from dropkey.ops.call import Draw
from dropkey.ops.cpu import library
from dropkey.ops.cpu.library import PATTERNS, DrawNumbers
from dropkey.ops.cpu.operators import mask_operator
from dropkey.patterns import Block, Cross, Geometry, Token

__all__ = ["draw_keep", "kept_tokens", "numbers_of"]


def draw_keep(draw: Draw, batch: int, num_heads: int, num_queries: int, num_keys: int) -> Tensor:
    """Return the keep mask of a draw, bool, broadcastable to (B, H, Nq, Nk), natively where that is possible.

    ``column`` and ``token`` need so few bits that torch draws them as fast.
    """
    on_cpu = draw.seed.device.type == "cpu"
    if not on_cpu or draw.pattern.name not in ("element", "block", "cross") or library.unavailable() is not None:
        return draw.keep(batch, num_heads, num_queries, num_keys)
    draw.pattern.check(Geometry(batch, num_heads, num_queries, num_keys, draw.grid_size, draw.num_prefix_tokens))
    mask: Tensor = mask_operator(batch, num_heads, num_queries, num_keys, *numbers_of(draw))
    return mask


def kept_tokens(draw: Draw, geometry: Geometry) -> Tensor:
    """Return the tokens that the token pattern keeps, natively where that is possible.

    Returns:
        int64 (B, number of kept), as rows of (B * N) tokens, image by image in the order of the keys or of their ranks.
    """
    assert isinstance(draw.pattern, Token)
    batch, num_heads, _, num_keys = geometry[:4]
    if draw.seed.device.type != "cpu" or library.unavailable() is not None:
        kept = draw.pattern.kept_keys(draw.seed, draw.drop_ratio.item(), geometry)
        return kept + num_keys * torch.arange(batch, device=kept.device)[:, None]
    ratio = draw.drop_ratio.to(torch.float64)
    num_kept = draw.pattern.num_kept(ratio.item(), num_keys)
    rows = torch.empty((batch, num_kept), dtype=torch.int64)
    sizes = batch, num_heads, num_keys, num_kept, torch.get_num_threads()
    library.kernel().tokens(ratio.data_ptr(), draw.seed.data_ptr(), *sizes, rows.data_ptr())
    return rows


def numbers_of(draw: Draw | None) -> DrawNumbers:
    """Return a draw as the operators take it; None draws nothing."""
    if draw is None:
        unread = torch.empty((), device="cpu")
        return DrawNumbers(unread, unread, unread, [-1, 0, 0, 0, 0])
    ratio = draw.drop_ratio.to(torch.float64)
    place = PATTERNS.index(draw.pattern.name)
    if not isinstance(draw.pattern, Block | Cross) or draw.grid_size is None:
        return DrawNumbers(ratio, draw.seed, draw.seed, [place, 0, 0, 0, 0])
    rows, cols = draw.grid_size
    window = draw.pattern.window_size
    threshold = torch.ops.dropkey.seed_threshold(ratio, rows, cols, window, draw.pattern.name == "cross")
    return DrawNumbers(ratio, draw.seed, threshold, [place, window, rows, cols, draw.num_prefix_tokens])
