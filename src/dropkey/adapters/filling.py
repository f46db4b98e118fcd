"""Putting a slot into the site of a module, which becomes one, and taking it out again."""

from torch import nn

from dropkey.adapters import own_dropout
from dropkey.adapters.class_swap import swap_in, swap_out
from dropkey.adapters.discover import Found
from dropkey.adapters.site import Site, site_of
from dropkey.adapters.slot import Slot

__all__ = ["empty", "fill"]


def fill(f: Found, slot: Slot, site: Site) -> None:
    """Put a slot into the site of a module."""
    site.slots = site.slots.joined_by(slot)
    swap_in(f.module, site)
    slot.put_in(f)
    own_dropout.settle(f.module, site)


def empty(module: nn.Module, slot: Slot) -> None:
    """Take a slot out of a module's site again, as far as it has been put in."""
    site = site_of(module)
    if site is None or slot not in site.slots:
        return
    site.slots = site.slots.without(slot)
    own_dropout.settle(module, site)
    slot.take_out(module)
    if not site.slots and not site.listeners:
        swap_out(module, site)
