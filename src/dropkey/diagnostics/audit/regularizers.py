"""What was applied by ``dropkey.apply``: it says itself what it has dropped."""

from collections.abc import Sequence

from torch import nn

from dropkey.adapters.names import shown, unwrapped_names
from dropkey.adapters.record import Record
from dropkey.adapters.site import site_of
from dropkey.adapters.slots.drop_slot import DropSlot
from dropkey.diagnostics.audit.passes import WatchedPass
from dropkey.diagnostics.audit.result import Finding
from dropkey.errors import SiteError

__all__ = ["findings_at", "sites_that_drop"]


def sites_that_drop(model: nn.Module) -> list[nn.Module]:
    """Return the modules whose attention a regularizer of ours drops from, at a ratio above 0."""
    return [module for module in model.modules() if any(slot.is_positive for slot in _slots(module))]


def findings_at(
    model: nn.Module, modules: Sequence[nn.Module], training: WatchedPass, evaluation: WatchedPass
) -> list[Finding]:
    """Judge each of these modules by what its site has recorded."""
    names = unwrapped_names(model)
    return [
        _finding(shown(names[module]), slot, trained, evaluated)
        for module, trained, evaluated in zip(modules, training.records, evaluation.records, strict=True)
        for slot in _slots(module)
        if slot.is_positive
    ]


def _finding(name: str, slot: DropSlot, trained: Sequence[Record], evaluated: Sequence[Record]) -> Finding:
    """Let the slot prove that it acts, as ``Handle.verify`` does."""
    share, problems = 0.0, []
    if not slot.enabled:
        problems.append("drops nothing: its handle is disabled")
    else:
        try:
            share = slot.check(name, trained, None).dropped_share if trained else 0.0
            problems += [] if trained else ["drops nothing in training"]
        except SiteError as error:
            problems.append(str(error).removeprefix(f"{name} "))
    acts = any(record.drops for record in evaluated)
    problems += ["acts in evaluation"] if acts else []
    what, rate = type(slot.regularizer).__name__, None if acts else 0.0
    return Finding(name, what, "drop_ratio", slot.drop_ratio, share, rate, 0, tuple(problems))


def _slots(module: nn.Module) -> list[DropSlot]:
    site = site_of(module)
    return [slot for slot in ([] if site is None else site.slots) if isinstance(slot, DropSlot)]
