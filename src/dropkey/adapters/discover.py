"""Finding the attention modules of a model: their block order, patch grid and prefix tokens."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any, NamedTuple

from torch import nn

from dropkey.adapters.entry import Entry
from dropkey.adapters.geometry import GridAndPrefix, around_of, geometry_of, pair
from dropkey.adapters.kinds import kind_by_place, part_of
from dropkey.adapters.names import shown
from dropkey.adapters.registry import entry_for, reason_to_leave

__all__ = ["Found", "attention_modules", "block_path", "left_alone", "unknown_attention", "unknown_modules"]

_LOOKS_LIKE_ATTENTION = re.compile(r"attention|attn", re.IGNORECASE)
# timm's parallel blocks keep several attentions of one block in a list of this name.
_LISTS_INSIDE_A_BLOCK = ("attns",)


class Found(NamedTuple):
    """One attention module of a model."""

    name: str
    module: nn.Module
    entry: Entry
    block_index: int
    grid_size: tuple[int, int] | None
    num_prefix_tokens: int

    @property
    def kind(self) -> str:
        """What the handle's table calls it."""
        return self.entry.kind


def attention_modules(model: nn.Module) -> list[Found]:
    """Return the attention modules that an adapter knows, in the order of the model's blocks.

    Blocks are told by the last number in the dotted path (``blocks.3.attn``, ``layers.1.blocks.0.attn``), counted in
    the order in which they stand in the model; a module outside of any numbered list is a block of its own, but an
    attention pool belongs to the block before it.
    """
    known = [(name, module, entry_for(module)) for name, module in model.named_modules()]
    places = [(name, [module, *around_of(model, name)], entry) for name, module, entry in known if entry is not None]
    parts = [part_of(around) for _, around, _ in places]
    blocks: dict[str, int] = {}
    found = []
    for (name, around, entry), part in zip(places, parts, strict=True):
        kind = kind_by_place(entry.kind, name, around, part if "decoder" in parts else None)
        is_pool = kind == "pool" and bool(blocks)
        block_index = len(blocks) - 1 if is_pool else blocks.setdefault(block_path(name), len(blocks))
        found.append(Found(name, around[0], replace(entry, kind=kind), block_index, *_geometry(entry, around)))
    return found


def _geometry(entry: Entry, around: Sequence[nn.Module]) -> GridAndPrefix:
    """Where the keys lie: a window is its own grid."""
    if entry.grid is not None:
        return pair(_attribute(around[0], entry.grid)), 0
    if entry.kind == "window":
        return None, 0
    grid_size, prefix = geometry_of(around)
    return grid_size, prefix if entry.num_prefix_tokens is None else entry.num_prefix_tokens


def _attribute(module: Any, path: str) -> Any:
    return reduce(lambda held, name: getattr(held, name, None), path.split("."), module)


def left_alone(model: nn.Module) -> list[str]:
    """Return "name (Class): reason" of modules that are called attention but have no keys to drop.

    Modules inside of a known one, or of one that is listed, are not.
    """
    found: list[str] = []
    outer: list[str] = []
    for name, module in model.named_modules():
        reason = reason_to_leave(module)
        if (reason is None and entry_for(module) is None) or any(_inside(name, other) for other in outer):
            continue
        outer.append(name)
        if reason is not None:
            found.append(f"{shown(name)} ({type(module).__name__}): {reason}")
    return found


def unknown_attention(model: nn.Module) -> list[str]:
    """Return "name (Class)" of modules that look like attention but have no adapter, see ``unknown_modules``."""
    return [f"{shown(name)} ({type(module).__name__})" for name, module in unknown_modules(model)]


def unknown_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return name and module of what looks like attention, by its class name or heads, but has no adapter.

    A module that contains a known one, or lies inside of one, or contains another that looks like attention, is not
    listed; neither is one with nothing to drop (see ``left_alone``).
    """
    known = [name for name, module in model.named_modules() if entry_for(module) or reason_to_leave(module)]
    suspects = [
        (name, module)
        for name, module in model.named_modules()
        if _looks_like_attention(module) and any(True for _ in module.parameters())
    ]
    names = known + [name for name, _ in suspects]
    return [
        (name, module)
        for name, module in suspects
        if not any(_inside(other, name) for other in names)
        and not any(_inside(name, other) or name == other for other in known)
    ]


def _looks_like_attention(module: nn.Module) -> bool:
    code = getattr(getattr(type(module), "forward", None), "__code__", None)
    return (
        bool(_LOOKS_LIKE_ATTENTION.search(type(module).__name__))
        or isinstance(getattr(module, "num_heads", None), int)
        or (code is not None and "scaled_dot_product_attention" in code.co_names)
    )


def _inside(name: str, outer: str) -> bool:
    return name != outer and (outer == "" or name.startswith(outer + "."))


def block_path(name: str) -> str:
    """Return the path up to the last number that counts blocks."""
    parts = name.split(".")
    for place in range(len(parts) - 1, 0, -1):
        if parts[place].isdigit() and parts[place - 1] not in _LISTS_INSIDE_A_BLOCK:
            return ".".join(parts[: place + 1])
    return name
