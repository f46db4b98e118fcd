"""The order of a model's blocks: as they run on an example, in place of as they are registered."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from dropkey.adapters.discover import Found
from dropkey.adapters.fast_path import encoder_layers_heard
from dropkey.adapters.listeners import listening_to
from dropkey.adapters.record import Record
from dropkey.adapters.restoring import restored
from dropkey.adapters.site import site_of
from dropkey.errors import SiteError

__all__ = ["as_arguments", "by_execution", "carried_order"]


def by_execution(model: nn.Module, found: Sequence[Found], example: Any) -> list[Found]:
    """Return attention modules with their blocks counted in the order in which they run on an example.

    The model runs once, in evaluation mode; modes, buffers and random state are as before afterwards.

    Args:
        model: that contains the modules.
        found: attention modules, as they are registered.
        example: see ``as_arguments``.

    Raises:
        SiteError: a module that does not run.
    """
    ran: list[str] = []
    with restored(model), torch.no_grad(), contextlib.ExitStack() as stack:
        model.eval()
        stack.enter_context(listening_to(found, lambda f: _Noting(f.name, ran)))
        stack.enter_context(encoder_layers_heard(model))
        args, kwargs = as_arguments(example)
        model(*args, **kwargs)
    idle = [f.name for f in found if f.name not in ran]
    if idle:
        raise SiteError(
            f"the example does not run {', '.join(idle[:3])}{', ...' if idle[3:] else ''}: give one that runs every "
            "block, or leave these out with where="
        )
    blocks = {f.name: f.block_index for f in found}
    order = list(dict.fromkeys(blocks[name] for name in ran))
    moved = [f._replace(block_index=order.index(f.block_index)) for f in found]
    return sorted(moved, key=lambda f: f.block_index)


def carried_order(found: Sequence[Found]) -> list[Found]:
    """Return attention modules with the order that an earlier apply has seen, if it has seen all of them run."""
    sites = [site_of(f.module) for f in found]
    if not all(site is not None and site.is_ordered for site in sites):
        return list(found)
    moved = [f._replace(block_index=site.block_index) for f, site in zip(found, sites, strict=True) if site is not None]
    return sorted(moved, key=lambda f: f.block_index)


def as_arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments that an example stands for: one by position, or a tuple of them, or a mapping by name."""
    if isinstance(example, Mapping):
        return (), dict(example)
    return (example if type(example) is tuple else (example,)), {}


class _Noting:
    """Notes that a module attends, each time it does."""

    always = True
    wants_maps = False

    def __init__(self, name: str, ran: list[str]) -> None:
        self.name = name
        self.ran = ran

    def heard(self, record: Record) -> None:
        """Note the name."""
        self.ran.append(self.name)
