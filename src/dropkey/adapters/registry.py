"""Which attention classes are known, and how to enter each of them."""

from torch import nn

from dropkey.adapters.entry import Entry
from dropkey.adapters.timm import TIMM_CLASSES, TIMM_LEFT_ALONE
from dropkey.adapters.torch_nn import TORCH_CLASSES
from dropkey.adapters.torchvision import TORCHVISION_CLASSES
from dropkey.adapters.transformers import TRANSFORMERS_CLASSES, interface_entry, transformers_reason
from dropkey.errors import ArgumentError

__all__ = ["entry_for", "reason_to_leave", "register"]

_CLASSES: dict[str, Entry] = {**TIMM_CLASSES, **TORCH_CLASSES, **TORCHVISION_CLASSES, **TRANSFORMERS_CLASSES}
_LEFT_ALONE: dict[str, str] = {**TIMM_LEFT_ALONE}

_REGISTERED: dict[type[nn.Module], Entry] = {}


def register(attention_class: type[nn.Module], *, kind: str = "self") -> type[nn.Module]:
    """Make an attention class of your own known to ``dropkey.apply``; usable as a class decorator.

    Its forward must call ``torch.nn.functional.scaled_dot_product_attention`` with (B, H, N, D) tensors; a site whose
    forward does not raises as soon as it should drop something. Instances of subclasses are found too.

    Args:
        attention_class: a subclass of torch.nn.Module.
        kind: what the handle's table calls it: "self", "cross" or a word of yours.

    Returns:
        The class itself.

    Raises:
        ArgumentError: not a class of modules.
    """
    if not (isinstance(attention_class, type) and issubclass(attention_class, nn.Module)):
        raise ArgumentError(f"register takes a subclass of torch.nn.Module, got {attention_class!r}")
    _REGISTERED[attention_class] = Entry(kind=kind)
    return attention_class


def entry_for(module: nn.Module) -> Entry | None:
    """Return how to enter a module, or None if its class is not known."""
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
