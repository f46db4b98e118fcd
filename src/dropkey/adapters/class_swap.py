"""The default way into a module: give it a subclass of its own class.

The subclass runs the module's own forward inside a mode that routes its attention call to the site. Nothing of the
module is written again, ``isinstance`` and the state_dict stay as they were, and taking it out is one assignment.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from dropkey.adapters.site import Pass, Site, attach, detach, require_called, site_of
from dropkey.errors import SiteError

__all__ = ["check_swappable", "swap_in", "swap_out"]

_SOFTMAXES = (torch.Tensor.softmax, torch.softmax, F.softmax)


class Routing(TorchFunctionMode):
    """Sends attention calls made inside of one forward pass to a site; any other function runs as it is."""

    def __init__(self, site: Site, forward: Pass) -> None:
        super().__init__()
        self.site = site
        self.forward = forward

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        if func in _SOFTMAXES and self.site.entry.routes_softmax:
            return self._softmax(func, *args, **kwargs)
        return func(*args, **kwargs)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,  # the module's own dropout gives way to the site's
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,  # the site broadcasts key heads whenever there are fewer
    ) -> Tensor:
        return self.site.attend(self.forward, query, key, value, attn_mask, is_causal, scale)

    def _softmax(self, func: Callable[..., Tensor], logits: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        dim = kwargs.get("dim", args[0] if args else None)
        if logits.dim() != 4 or dim not in (-1, 3):
            return func(logits, *args, **kwargs)
        return self.site.drop_logits(self.forward, logits)


def check_swappable(name: str, module: nn.Module) -> None:
    """Raise a SiteError for a module whose class would not be asked for its forward."""
    if "forward" in module.__dict__:
        raise SiteError(
            f"{name} ({type(module).__name__}) has a forward of its own set on the instance, which would hide ours: "
            "apply dropkey before whatever patches this module"
        )


def swap_in(module: nn.Module, site: Site) -> None:
    """Make a module a site, or leave it one."""
    if site_of(module) is None:
        attach(module, site)
        module.__class__ = _site_class(type(module))


def swap_out(module: nn.Module, site: Site) -> None:
    """Give a module its original class back."""
    check_ours(module, site)
    module.__class__ = site.original_class
    detach(module)


def check_ours(module: nn.Module, site: Site) -> None:
    """Raise a SiteError if someone else has changed the module's class since it became a site."""
    if type(module) is not _site_class(site.original_class):
        raise SiteError(
            f"{site.name} is now a {type(module).__qualname__}: something has changed its class after dropkey.apply; "
            "undo that first (unwrap the model), then remove"
        )


_SITE_CLASSES: dict[type[nn.Module], type[nn.Module]] = {}


def _site_class(base: type[nn.Module]) -> type[nn.Module]:
    """Return the one subclass of an attention class that consults the module's site."""
    if base not in _SITE_CLASSES:
        _SITE_CLASSES[base] = _make_site_class(base)
    return _SITE_CLASSES[base]


def _make_site_class(base: type[nn.Module]) -> type[nn.Module]:
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        site = self._dropkey_site
        assert isinstance(site, Site)
        if not site.acts(self.training):
            return base.forward(self, *args, **kwargs)
        pass_ = Pass(self.training)
        with Routing(site, pass_):
            out = base.forward(self, *args, **kwargs)
        require_called(site, pass_)
        return out

    def reduce(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
        return _rebuild, (base,), self.__dict__.copy()

    members = {"forward": forward, "__reduce_ex__": reduce, "__module__": base.__module__, "__doc__": base.__doc__}
    return type(f"{base.__name__}Site", (base,), members)


def _rebuild(base: type[nn.Module]) -> nn.Module:
    """Make an empty instance of a site class for pickle and deepcopy, which cannot name the class itself."""
    cls = _site_class(base)
    return cls.__new__(cls)
