"""The rates that a module's attributes state."""

import re
from typing import NamedTuple

from torch import nn

from dropkey.adapters.site import site_of

__all__ = ["Declared", "declared_rates", "is_dropper", "keeps_scale"]

_NAME = re.compile(r"drop|stochastic", re.IGNORECASE)  # StochasticDepth is torchvision's drop path
_IS_NO_RATE = re.compile(r"dropkey|scale|size|keep", re.IGNORECASE)
_SHORT = ("p", "prob", "rate")  # in classes whose own name says what they are


class Declared(NamedTuple):
    """One rate above 0, by the attribute that states it."""

    attribute: str
    rate: float


def is_dropper(module: nn.Module) -> bool:
    """Say whether a module is there to drop: its class is called so and it has no parameters or parts of its own."""
    is_leaf = next(module.parameters(), None) is None and next(module.children(), None) is None
    return is_leaf and bool(_NAME.search(type(module).__name__))


def declared_rates(module: nn.Module) -> list[Declared]:
    """Return the rates above 0 that a module's own attributes state, each value once."""
    named = is_dropper(module)
    rates: dict[float, str] = {}
    for name, value in vars(module).items():
        says = (_NAME.search(name) and not _IS_NO_RATE.search(name)) or (named and name in _SHORT)
        if says and isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1:
            rates.setdefault(float(value), name)
    return [Declared(name, rate) for rate, name in rates.items()]


def keeps_scale(module: nn.Module) -> bool:
    """Say whether a module's own option asks for kept values that are not scaled up."""
    return getattr(module, "scale_by_keep", True) is False


def has_droppers(module: nn.Module) -> bool:
    """Say whether a regularizer of ours that drops was applied to a module."""
    site = site_of(module)
    return site is not None and any(slot.drops for slot in site.slots)
