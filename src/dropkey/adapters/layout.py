"""How libraries lay out their attention tensors, and how to bring them to (batch, heads, tokens, ...) and back.

A layout names the axes before the last two: ``b`` batch, ``h`` heads, ``w`` windows, ``g`` batch and heads in one.
Windows join the batch: masks of two windows have nothing to do with each other.
"""

from torch import Tensor

__all__ = ["LAYOUTS", "fold", "unfold"]

LAYOUTS = ("bh", "b", "g", "bwh", "bhw", "gw")


def fold(tensor: Tensor, layout: str, num_heads: int) -> Tensor:
    """Return a tensor of this layout as (B, H, ...), with B = batch * windows.

    Args:
        tensor: (..., tokens, channels) or (..., queries, keys), with the axes of ``layout`` before these two.
        layout: one of LAYOUTS.
        num_heads: heads in an axis ``g``; not used otherwise.
    """
    if layout.startswith("g"):
        tensor = tensor.reshape(-1, num_heads, *tensor.shape[1:])
    if layout == "b":
        return tensor.unsqueeze(1)
    if layout == "bwh":
        return tensor.flatten(0, 1)
    return tensor.transpose(1, 2).flatten(0, 1) if layout in ("bhw", "gw") else tensor


def unfold(tensor: Tensor, layout: str, num_windows: int) -> Tensor:
    """Undo ``fold``; ``num_windows`` is the size of the axis ``w``, if there is one."""
    if layout == "b":
        return tensor.squeeze(1)
    if "w" in layout:
        tensor = tensor.reshape(-1, num_windows, *tensor.shape[1:])
    if layout in ("bhw", "gw"):
        tensor = tensor.transpose(1, 2)
    return tensor.flatten(0, 1) if layout.startswith("g") else tensor
