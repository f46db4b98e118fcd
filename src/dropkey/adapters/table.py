"""Plain-text tables of sites."""

from collections.abc import Sequence

from torch import nn

from dropkey.adapters.names import shown, unwrapped_names
from dropkey.adapters.site import Site
from dropkey.adapters.slot import Slot
from dropkey.text_table import text_table

__all__ = ["of_sites"]


def of_sites(
    model: nn.Module,
    rows: Sequence[tuple[nn.Module, Site, Slot]],
    unknown: Sequence[str],
    left_alone: Sequence[str],
    patched: Sequence[str],
    enabled: bool,
) -> str:
    """Return the table that ``print(handle)`` shows: one line a site, and what was not reached."""
    slot = rows[0][2]
    state = "DISABLED" if any(not slot.enabled for _, _, slot in rows) else "enabled" if enabled else "NOT AT ALL SITES"
    title = f"{slot.regularizer} on {type(model).__name__}: {_sites(len(rows))}, {state}"
    own = any(site.own_dropout for _, site, _ in rows)
    loops = any((site.calls_per_pass or 1) > 1 for _, site, _ in rows)
    header = [
        "site",
        "kind",
        "block",
        *slot.columns,
        *(["calls"] if loops else []),
        *(["its own dropout"] if own else []),
    ]
    names = unwrapped_names(model)
    body = [
        [shown(names[module]), site.entry.kind, str(site.block_index)]
        + slot.cells(module, site.entry, site.num_keys)
        + ([str(site.calls_per_pass or "?")] if loops else [])
        + ([_own(site)] if own else [])
        for module, site, slot in rows
    ]
    lines = [title, text_table([header, *body])]
    if patched:
        lines.append(f"Changed since apply, see whether it still acts with handle.verify: {'; '.join(patched)}")
    if unknown:
        lines.append(f"Not reached, nothing is {slot.does} there: {', '.join(unknown)}")
    return "\n".join(lines + _left_alone(left_alone))


def _left_alone(entries: Sequence[str]) -> list[str]:
    """Return a line for each reason, with the modules that it holds for."""
    by_reason: dict[str, list[str]] = {}
    for entry in entries:
        name, _, reason = entry.partition(": ")
        by_reason.setdefault(reason, []).append(name)
    lines = []
    for reason, names in by_reason.items():
        more = f", and {len(names) - 3} more" if len(names) > 3 else ""
        lines.append(f"Left alone ({reason}): {', '.join(names[:3])}{more}")
    return lines


def _sites(count: int) -> str:
    return "1 site" if count == 1 else f"{count} sites"


def _own(site: Site) -> str:
    return ", ".join(f"{name} {rate:g} set to 0" for name, rate in site.own_dropout.items()) or "none"
