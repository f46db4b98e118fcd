"""Listening to the attention calls of a model's sites, and to modules that are sites only while somebody listens."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

from torch import nn

from dropkey.adapters.chosen_modules import chosen_modules
from dropkey.adapters.class_swap import check_swappable, swap_in, swap_out
from dropkey.adapters.discover import Found, attention_modules
from dropkey.adapters.new_site import new_site
from dropkey.adapters.record import Listener, Record
from dropkey.adapters.site import Site, site_of
from dropkey.errors import SiteError

__all__ = ["Recorder", "listening", "listening_everywhere", "listening_to", "recording"]


class Recorder:
    """Keeps the records of one site, of the calls in which a regularizer acts or all of them."""

    def __init__(self, always: bool = False, wants_maps: bool = False) -> None:
        self.always = always
        self.wants_maps = wants_maps
        self.records: list[Record] = []

    def heard(self, record: Record) -> None:
        """Keep the record."""
        self.records.append(record)


@contextlib.contextmanager
def listening(pairs: Sequence[tuple[nn.Module, Listener]]) -> Iterator[None]:
    """Let each listener hear the attention calls of its module, which is a site; others may listen meanwhile.

    A regularizer may come and go as well. A module that is left without regularizer and listener gets its class back.
    """
    try:
        for module, listener in pairs:
            _site(module).listeners += (listener,)
        yield
    finally:
        for module, listener in pairs:
            _leave(module, listener)
        for module, _ in pairs:
            _leave_nothing(module)


@contextlib.contextmanager
def listening_everywhere(
    model: nn.Module, listener: Callable[[Found], Listener], where: Callable[[Found], bool] | None = None
) -> Iterator[None]:
    """Listen to every attention module that an adapter knows, also where no regularizer was applied.

    Args:
        model: any module that ``apply`` would take; its outputs stay what they are.
        listener: makes the listener of one attention module.
        where: says of each attention module whether to listen there; everywhere by default.

    Raises:
        SiteError: no such module, none where asked for, or one that something else has patched.
    """
    with listening_to(chosen_modules(model, attention_modules(model), where), listener):
        yield


@contextlib.contextmanager
def listening_to(found: Sequence[Found], listener: Callable[[Found], Listener]) -> Iterator[None]:
    """Listen to attention modules that have been found, also where no regularizer was applied."""
    pairs = [(f.module, listener(f)) for f in found]
    for f in found:
        if site_of(f.module) is None:
            check_swappable(f.name, f.module)
    for f in found:
        swap_in(f.module, site_of(f.module) or new_site(f))
    with listening(pairs):
        yield


@contextlib.contextmanager
def recording(modules: Sequence[nn.Module]) -> Iterator[list[list[Record]]]:
    """Record the calls of sites in which a regularizer acts: one list for each module, filled as they are made."""
    recorders = [Recorder() for _ in modules]
    with listening(list(zip(modules, recorders, strict=True))):
        yield [recorder.records for recorder in recorders]


def _site(module: nn.Module) -> Site:
    site = site_of(module)
    if site is None:
        raise SiteError(f"nothing can listen to this {type(module).__name__}: it is no site of dropkey")
    return site


def _leave(module: nn.Module, listener: Listener) -> None:
    site = site_of(module)
    if site is not None:
        site.listeners = tuple(other for other in site.listeners if other is not listener)


def _leave_nothing(module: nn.Module) -> None:
    """Give a module its class back if neither a slot nor a listener is left."""
    site = site_of(module)
    if site is not None and not site.listeners and not site.slots:
        swap_out(module, site)
