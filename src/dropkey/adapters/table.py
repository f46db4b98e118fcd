"""Plain-text tables of sites."""

from collections.abc import Sequence

import torch
from torch import nn

from dropkey.adapters.entry import Entry
from dropkey.adapters.names import unwrapped_names
from dropkey.adapters.site import Site
from dropkey.adapters.slot import Slot
from dropkey.adapters.slots.reattention import mixer_of
from dropkey.ops.call import AttentionCall, Draw
from dropkey.ops.dispatch import select
from dropkey.ops.ordinary import is_plain
from dropkey.patterns import Element, Token
from dropkey.regularizers import AttentionDropout, DropKey, ReAttention
from dropkey.schedules import drawn_ratio

__all__ = ["computes_softmax", "of_sites", "shown", "text_table"]


def of_sites(
    model: nn.Module, rows: Sequence[tuple[nn.Module, Site, Slot]], unknown: Sequence[str], left_alone: Sequence[str]
) -> str:
    """Return the table that ``print(handle)`` shows: one line a site, and what was not reached."""
    slot = rows[0][2]
    state = "enabled" if all(slot.enabled for _, _, slot in rows) else "DISABLED"
    title = f"{slot.regularizer} on {type(model).__name__}: {len(rows)} sites, {state}"
    mixes = isinstance(slot.regularizer, ReAttention)
    own = any(site.own_dropout for _, site, _ in rows)
    columns = ["norm", "gate"] if mixes else ["drop ratio", "backend"]
    loops = any((site.calls_per_pass or 1) > 1 for _, site, _ in rows)
    header = ["site", "kind", "block", *columns, *(["calls"] if loops else []), *(["its own dropout"] if own else [])]
    names = unwrapped_names(model)
    body = [
        [shown(names[module]), site.entry.kind, str(site.block_index)]
        + (_mixing(module, slot) if mixes else [_ratio(site, slot), _backend(module, site, slot)])
        + ([str(site.calls_per_pass or "?")] if loops else [])
        + ([_own(site)] if own else [])
        for module, site, slot in rows
    ]
    lines = [title, text_table([header, *body])]
    if unknown:
        lines.append(f"Not reached, nothing is {'mixed' if mixes else 'dropped'} there: {', '.join(unknown)}")
    if left_alone:
        more = f", and {len(left_alone) - 3} more" if len(left_alone) > 3 else ""
        lines.append(f"Left alone, there are no keys to drop: {', '.join(left_alone[:3])}{more}")
    return "\n".join(lines)


def shown(name: str) -> str:
    """Return a module's name as tables and messages show it."""
    return name or "(the model itself)"


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as left-aligned columns, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def _ratio(site: Site, slot: Slot) -> str:
    shown = f"{drawn_ratio(slot.drop_ratio):.4g}"
    pattern = slot.regularizer.pattern if isinstance(slot.regularizer, DropKey) else None
    if not (isinstance(pattern, Token) and slot.drop_ratio > 0):
        return shown
    if site.grid_size is None:
        return f"{shown} (rounded to whole keys)"
    num_keys = site.grid_size[0] * site.grid_size[1] + site.num_prefix_tokens
    dropped = num_keys - Token.num_kept(slot.drop_ratio, num_keys)
    return f"{shown} ({dropped} of {num_keys} keys: {dropped / num_keys:.4g})"


def _mixing(module: nn.Module, slot: Slot) -> list[str]:
    assert isinstance(slot.regularizer, ReAttention)
    gate = getattr(mixer_of(module), "gate", None)
    return [slot.regularizer.norm, f"{gate.item():.3g}" if isinstance(gate, torch.Tensor) and is_plain(gate) else "?"]


def _backend(module: nn.Module, site: Site, slot: Slot) -> str:
    in_python = computes_softmax(module, site.entry)
    if isinstance(slot.regularizer, AttentionDropout):
        return "weights" if slot.regularizer.renormalize or in_python else "sdpa"
    if in_python:
        return "its own softmax"
    if slot.backend != "auto":
        return slot.backend
    parameter = next(module.parameters(), torch.empty(0))
    tensor = parameter.new_empty((1, 1, 2, 64))
    draw = Draw(Element(), slot.ratio_tensor, torch.zeros((), dtype=torch.int64, device=tensor.device))
    return f"auto ({select(AttentionCall(tensor, tensor, tensor, None, False, 1.0, draw), 'auto').name})"


def computes_softmax(module: nn.Module, entry: Entry) -> bool:
    """Say whether a module computes its softmax in Python, as it is set now: no backend of ours runs there."""
    if not entry.routes_softmax or entry.fused:
        return False
    implementation = getattr(getattr(module, "config", None), "_attn_implementation", None)
    return implementation == "eager" if implementation else not getattr(module, "fused_attn", False)


def _own(site: Site) -> str:
    return ", ".join(f"{name} {rate:g} set to 0" for name, rate in site.own_dropout.items()) or "none"
