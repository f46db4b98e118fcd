"""Which attention classes are known, and how to enter each of them."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, overload

from torch import nn

from dropkey.adapters.detectors import DETECTOR_CLASSES, DETECTORS_LEFT_ALONE
from dropkey.adapters.entry import SITE, Entry
from dropkey.adapters.timm import TIMM_CLASSES, TIMM_LEFT_ALONE
from dropkey.adapters.torch_nn import TORCH_CLASSES
from dropkey.adapters.torchvision import TORCHVISION_CLASSES
from dropkey.adapters.transformers import TRANSFORMERS_CLASSES, interface_entry, transformers_reason
from dropkey.arguments import short
from dropkey.errors import ArgumentError

__all__ = ["entry_for", "reason_to_leave", "register"]

_CLASSES: dict[str, Entry] = {
    **TIMM_CLASSES,
    **TORCH_CLASSES,
    **TORCHVISION_CLASSES,
    **TRANSFORMERS_CLASSES,
    **DETECTOR_CLASSES,
}
_LEFT_ALONE: dict[str, str] = {**TIMM_LEFT_ALONE, **DETECTORS_LEFT_ALONE}

_LAYOUTS = {"bh": "bh", "b": "g"}  # what users call those of ``layout.py`` that a class of theirs can have

_Class = TypeVar("_Class", bound=type[nn.Module])
_REGISTERED: dict[type[nn.Module], Entry] = {}


@overload
def register(attention_class: _Class, *, kind: str | None = ..., softmax: bool = ..., layout: str = ...) -> _Class: ...


@overload
def register(
    attention_class: None = ..., *, kind: str | None = ..., softmax: bool = ..., layout: str = ...
) -> Callable[[_Class], _Class]: ...


def register(
    attention_class: type[nn.Module] | None = None,
    *,
    kind: str | None = None,
    softmax: bool = False,
    layout: str = "bh",
) -> Any:
    """Make an attention class of your own known to ``dropkey.apply``; usable as a class decorator.

    Its forward must call ``torch.nn.functional.scaled_dot_product_attention`` or, with ``softmax``, compute a softmax
    over the keys; a site whose forward does neither raises as soon as it should drop something. Instances of subclasses
    are found too. ``Handle.verify`` proves that it works. Its own dropout of attention weights gives way to what drops.

    Args:
        attention_class: a subclass of torch.nn.Module; left out where it is used as a decorator with keywords.
        kind: what the handle's table calls it: "self", "cross" or a word of yours; by default told from its place.
        softmax: its forward computes ``softmax(logits, dim=-1)`` itself: as a function or method of torch, or by an
            nn.Softmax. Every such softmax in it must be over keys.
        layout: axes before the last two, of the query and of the logits: "bh" for (B, H, N, D) and (B, H, Nq, Nk); "b"
            for (B * H, N, D) and (B * H, Nq, Nk), where the module has its number of heads in an attribute, such as
            ``num_heads`` or ``heads``.

    Returns:
        The class itself.

    Raises:
        ArgumentError: not a class of modules, or an unknown layout.
    """
    if attention_class is None:
        return partial(register, kind=kind, softmax=softmax, layout=layout)
    if not (isinstance(attention_class, type) and issubclass(attention_class, nn.Module)):
        raise ArgumentError(f"register takes a subclass of torch.nn.Module, got {short(attention_class)}")
    if layout not in _LAYOUTS:
        raise ArgumentError(f"layout must be one of {', '.join(map(repr, _LAYOUTS))}, got {layout!r}")
    own_dropout = (*Entry.own_dropout, "attn_dropout")
    _REGISTERED[attention_class] = Entry(
        kind or "self", routes_softmax=softmax, layout=_LAYOUTS[layout], own_dropout=own_dropout
    )
    return attention_class


def entry_for(module: nn.Module) -> Entry | None:
    """Return how to enter a module, or None if its class is not known; a site knows it, however it was found."""
    site = module.__dict__.get(SITE)
    if site is not None:
        return site.entry  # type: ignore[no-any-return]
    for cls in type(module).__mro__:
        entry = _REGISTERED.get(cls) or _CLASSES.get(_path(cls)) or interface_entry(cls)
        if entry is not None:
            return entry
    return None


def reason_to_leave(module: nn.Module) -> str | None:
    """Return why a module that is called attention has nothing to drop, or None if that is not known."""
    reasons = (_LEFT_ALONE.get(_path(cls)) or transformers_reason(cls) for cls in type(module).__mro__)
    return next((reason for reason in reasons if reason is not None), None)


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
