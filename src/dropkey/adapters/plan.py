"""What ``apply`` is about to do: which modules become sites, with which drop ratios."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn

from dropkey.adapters.block_order import by_execution, carried_order
from dropkey.adapters.by_shape import proved_by_shape
from dropkey.adapters.chosen_modules import chosen_modules
from dropkey.adapters.discover import Found, attention_modules, block_path
from dropkey.adapters.names import unwrapped_names
from dropkey.adapters.settings import Settings
from dropkey.adapters.slots import SLOTS
from dropkey.errors import ArgumentError, SiteError
from dropkey.regularizers import Regularizer

__all__ = ["Plan", "planned", "restored"]

Where = Callable[[Found], bool] | None


class Plan(NamedTuple):
    """A regularizer, the modules that get it, and the drop ratio of each."""

    regularizer: Regularizer
    found: Sequence[Found]
    drop_ratios: Sequence[float]
    enabled: bool = True
    watches_order: bool = False  # it decides something, and was not seen yet


def planned(
    model: nn.Module, regularizer: Regularizer, where: Where, example: Any = None, by_shape: bool = False
) -> Plan:
    """Plan a regularizer for the modules that ``where`` chooses, in the order in which they run on an example."""
    known = attention_modules(model)
    if by_shape:
        known = _in_place(model, [*known, *proved_by_shape(model, example)])
    there = chosen_modules(model, known, where, ", or pass by_shape=True and example=")
    there = carried_order(there) if example is None else by_execution(model, there, example)
    found = SLOTS[type(regularizer)].chosen(there, regularizer)
    drop_ratios = _drop_ratios(found, regularizer)
    order_matters = len(set(drop_ratios)) > 1 or len(found) < len(there)
    return Plan(regularizer, found, drop_ratios, watches_order=order_matters and example is None)


def _in_place(model: nn.Module, found: Sequence[Found]) -> list[Found]:
    """Return attention modules in the order of the model, with their blocks counted anew."""
    by_name = {f.name: f for f in found}
    ordered = [by_name[name] for name, _ in model.named_modules() if name in by_name]
    blocks: dict[str, int] = {}
    return [f._replace(block_index=blocks.setdefault(block_path(f.name), len(blocks))) for f in ordered]


def restored(model: nn.Module, state: Mapping[str, Any], where: Where, example: Any = None) -> Plan:
    """Plan what a handle's ``state_dict`` says, for the modules that it names."""
    if where is not None:
        raise ArgumentError("a handle's state_dict names its sites: leave out where")
    settings = Settings.from_plain(state)
    names = unwrapped_names(model)
    named = {names[f.module]: f for f in attention_modules(model)}
    missing = sorted(set(settings.drop_ratios) - set(named))
    if missing:
        raise SiteError(
            f"this {type(model).__name__} has no attention called {', '.join(missing[:3])}, as the settings have: "
            "restore them on a model like the one that they are of, before it is wrapped"
        )
    found = [f for name, f in named.items() if name in settings.drop_ratios]
    found = carried_order(found) if example is None else by_execution(model, found, example)
    return Plan(settings.regularizer, found, [settings.drop_ratios[names[f.module]] for f in found], settings.enabled)


def _drop_ratios(found: Sequence[Found], regularizer: Regularizer) -> list[float]:
    """Return the drop ratio of each module: that of its block."""
    blocks = sorted({f.block_index for f in found})
    ratios = dict(zip(blocks, regularizer.ratios(len(blocks)), strict=True))
    return [ratios[f.block_index] for f in found]
