"""Keep masks drawn by the kernel: the same bits as the patterns draw in torch, many times faster."""

import torch
from torch import Tensor

from dropkey.ops.call import Draw
from dropkey.ops.cpu import library
from dropkey.ops.cpu.library import PATTERNS, DrawNumbers, list_tokens
from dropkey.ops.cpu.operators import mask_operator
from dropkey.ops.ordinary import is_plain
from dropkey.ops.transforms import active_transform
from dropkey.patterns import Block, Cross, Geometry, Token

__all__ = ["draw_keep", "kept_tokens", "numbers_of"]


def draw_keep(draw: Draw, batch: int, num_heads: int, num_queries: int, num_keys: int) -> Tensor:
    """Return the keep mask of a draw, bool, broadcastable to (B, H, Nq, Nk), natively where that is possible.

    ``column`` and ``token`` need so few bits that torch draws them as fast.
    """
    is_native = draw.pattern.name in ("element", "block", "cross") and 0 not in (
        batch,
        num_heads,
        num_queries,
        num_keys,
    )
    if not is_native or not _is_on_cpu(draw) or active_transform() or library.unavailable() is not None:
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
    is_native = _is_on_cpu(draw) and is_plain(draw.seed) and is_plain(draw.drop_ratio)
    if not is_native or active_transform() or library.unavailable() is not None:
        kept = draw.pattern.kept_keys(draw.seed, draw.drop_ratio.item(), geometry)
        return kept + num_keys * torch.arange(batch, device=kept.device)[:, None]
    ratio = draw.drop_ratio.to(torch.float64)
    num_kept = draw.pattern.num_kept(ratio.item(), num_keys)
    rows = torch.empty((batch, num_kept), dtype=torch.int64, device="cpu")  # whatever the default device
    list_tokens(ratio, draw.seed, num_heads, num_keys, rows)
    return rows


def _is_on_cpu(draw: Draw) -> bool:
    return draw.seed.device.type == draw.drop_ratio.device.type == "cpu"


def numbers_of(draw: Draw | None) -> DrawNumbers:
    """Return a draw as the operators take it; None draws nothing."""
    if draw is None:
        unread = torch.empty((), device="cpu")
        return DrawNumbers(unread, unread, unread, [-1, 0, 0, 0, 0])
    ratio = draw.drop_ratio.to("cpu", torch.float64)
    place = PATTERNS.index(draw.pattern.name)
    if not isinstance(draw.pattern, Block | Cross) or draw.grid_size is None:
        return DrawNumbers(ratio, draw.seed, draw.seed, [place, 0, 0, 0, 0])
    rows, cols = draw.grid_size
    window = draw.pattern.window_size
    threshold = torch.ops.dropkey.seed_threshold(ratio, rows, cols, window, draw.pattern.name == "cross")
    return DrawNumbers(ratio, draw.seed, threshold, [place, window, rows, cols, draw.num_prefix_tokens])
