"""Keep masks drawn by the kernel: the same bits as the patterns draw in torch, many times faster."""

import torch
from torch import Tensor

from dropkey.ops.call import Draw
from dropkey.ops.cpu.door import PATTERNS, DrawNumbers, check_draw, check_numbers, check_whole
from dropkey.ops.cpu.library import kernel
from dropkey.ops.cpu.operators import mask_operator
from dropkey.ops.ordinary import is_plain
from dropkey.ops.transforms import active_transform
from dropkey.patterns import Block, Cross, Geometry, Token

__all__ = ["draw_keep", "kept_tokens", "numbers_of", "why_not_drawn", "why_not_listed"]

_DRAWN = ("element", "block", "cross")  # column and token need so few bits that torch draws them as fast


def why_not_drawn(draw: Draw, mask_shape: tuple[int, int, int, int]) -> str | None:
    """Return why the kernel does not draw a mask of this shape (B, H, Nq, Nk), or None."""
    if draw.pattern.name not in _DRAWN:
        return f"the mask of pattern {draw.pattern.name!r} is not drawn by the kernel"
    if 0 in mask_shape:
        return "the mask is empty"
    return _why_elsewhere(draw) or active_transform()


def draw_keep(draw: Draw, mask_shape: tuple[int, int, int, int]) -> Tensor:
    """Return the keep mask of a draw, bool (B, H, Nq, Nk)."""
    draw.pattern.check(Geometry(*mask_shape, draw.grid_size, draw.num_prefix_tokens))
    mask: Tensor = mask_operator(*mask_shape, *numbers_of(draw))
    return mask


def why_not_listed(draw: Draw) -> str | None:
    """Return why the kernel does not list the tokens that a draw keeps, or None."""
    elsewhere = _why_elsewhere(draw)
    if elsewhere is None and not (is_plain(draw.seed) and is_plain(draw.drop_ratio)):
        return "the seed or the ratio is not one of torch's own tensors"
    return elsewhere or active_transform()


def kept_tokens(draw: Draw, geometry: Geometry) -> Tensor:
    """Return the tokens that the token pattern keeps.

    Returns:
        int64 (B, number of kept), as rows of (B * N) tokens, image by image in the order of the keys.
    """
    assert isinstance(draw.pattern, Token)
    batch, num_heads, _, num_keys = geometry[:4]
    ratio = draw.drop_ratio.to(torch.float64)
    num_kept = draw.pattern.num_kept(ratio.item(), num_keys)
    rows = torch.empty((batch, num_kept), dtype=torch.int64, device="cpu")  # whatever the default device
    _list_tokens(ratio, draw.seed, num_heads, num_keys, rows)
    return rows


def _list_tokens(drop_ratio: Tensor, seed: Tensor, num_heads: int, num_keys: int, rows: Tensor) -> None:
    """Write which tokens the token pattern keeps, int64 (B, kept), as rows of (B * num_keys) tokens.

    Raises:
        BackendError: names what does not fit.
    """
    batch, num_kept = rows.shape
    check_numbers(batch=batch, heads=num_heads, keys=num_keys)
    check_draw(drop_ratio, seed, seed, [PATTERNS.index("token"), 0, 0, 0, 0], num_keys)
    check_whole("rows", rows, torch.int64, (batch, max(1, round((1 - drop_ratio.item()) * num_keys))))
    sizes = batch, num_heads, num_keys, num_kept, torch.get_num_threads()
    kernel().tokens(drop_ratio.data_ptr(), seed.data_ptr(), *sizes, rows.data_ptr())


def _why_elsewhere(draw: Draw) -> str | None:
    is_here = draw.seed.device.type == draw.drop_ratio.device.type == "cpu"
    return None if is_here else f"the seed is on {draw.seed.device.type}, the ratio on {draw.drop_ratio.device.type}"


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
