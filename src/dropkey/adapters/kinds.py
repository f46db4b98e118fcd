"""What a site is called by its place: self or cross attention, of an encoder or a decoder."""

import re
from collections.abc import Sequence

from torch import nn

__all__ = ["kind_by_place", "part_of"]

_CROSS_NAMES = re.compile(r"cross|multihead_attn|encoder_att")


def part_of(around: Sequence[nn.Module]) -> str | None:
    """Return "encoder" or "decoder", from the class names of the modules around a site, nearest first."""
    for module in around:
        name = type(module).__name__
        parts = [part for part in ("encoder", "decoder") if part.capitalize() in name]
        if len(parts) == 1:
            return parts[0]
    return None


def kind_by_place(kind: str, name: str, around: Sequence[nn.Module], part: str | None) -> str:
    """Return the kind of a site: its adapter's word, or where that is "self", what its place says.

    Args:
        kind: the adapter's word.
        name: dotted path of the attention module.
        around: the attention module and those that contain it, nearest first.
        part: "encoder" or "decoder" in a model that has a decoder, otherwise None.
    """
    if kind != "self":
        return kind
    if len(around) > 1 and "Pool" in type(around[1]).__name__:
        return "pool"
    own_name = name.rpartition(".")[2]
    is_cross = _CROSS_NAMES.search(own_name) or "CrossAttention" in type(around[0]).__name__
    word = "cross" if is_cross else "self"
    return word if part is None else f"{part} {word}"
