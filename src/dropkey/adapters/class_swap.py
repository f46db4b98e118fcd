"""The default way into a module: give it a subclass of its own class.

The subclass runs the module's own forward inside a mode that routes its attention call to the site. Nothing of the
module is written again, ``isinstance`` and the state_dict stay as they were, and taking it out is one assignment.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy, Tracer

from dropkey.adapters.forward_pass import ForwardPass
from dropkey.adapters.heads import HEAD_COUNTS, num_heads_of
from dropkey.adapters.registry import entry_for
from dropkey.adapters.routing import Routing
from dropkey.adapters.site import Site, attach, detach, site_of, without_site
from dropkey.adapters.tap import listens_to, tapped
from dropkey.adapters.token_selection import forward_selected
from dropkey.adapters.transformers import implementation_problem
from dropkey.errors import SiteError, first_line

__all__ = ["check_ours", "check_swappable", "patched_since", "replaced", "swap_in", "swap_out"]


def check_swappable(name: str, module: nn.Module) -> None:
    """Raise a SiteError for a module whose class would not be asked for its forward."""
    if "forward" in module.__dict__:
        raise SiteError(
            f"{name} ({type(module).__name__}) has a forward of its own set on the instance, which would hide ours: "
            "apply dropkey before whatever patches this module"
        )
    entry = entry_for(module)
    if entry is not None and entry.layout == "g" and num_heads_of(module) is None:
        raise SiteError(
            f"{name} ({type(module).__name__}) has batch and heads on one axis and does not say how many heads: set "
            f"one of {', '.join(HEAD_COUNTS)} on it"
        )
    problem = implementation_problem(module)
    if problem is not None:
        raise SiteError(f"{name} ({type(module).__name__}) cannot be reached: {problem}")
    try:
        _site_class(type(module))
    except Exception as error:  # whatever the class or its metaclass does when it gets a subclass
        raise SiteError(
            f"{name} ({type(module).__name__}) cannot become a site, because its class cannot be given a subclass "
            f"without arguments: {first_line(error)}; leave it out with where="
        ) from error


def swap_in(module: nn.Module, site: Site) -> None:
    """Make a module a site, or leave it one."""
    if site_of(module) is None:
        site_class = _site_class(type(module))
        attach(module, site)
        try:
            module.__class__ = site_class
        except BaseException:  # the class of this instance cannot be assigned
            detach(module)
            raise


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


def replaced(module: nn.Module, site: Site) -> str | None:
    """Return what keeps a module from asking its site since it was put in, or None; subclasses of ours (FSDP's) ask."""
    if not isinstance(module, _site_class(site.original_class)):
        return f"something has made it a {type(module).__qualname__}"
    return None


def patched_since(module: nn.Module, site: Site) -> str | None:
    """Return the same, or what may do so: only a forward pass can tell whether a forward on the instance calls ours."""
    own_forward = "a forward was set on the instance" if "forward" in module.__dict__ else None
    return replaced(module, site) or own_forward


_SITE_CLASSES: dict[type[nn.Module], type[nn.Module]] = {}


def _site_class(base: type[nn.Module]) -> type[nn.Module]:
    """Return the one subclass of an attention class that consults the module's site."""
    if base not in _SITE_CLASSES:
        _SITE_CLASSES[base] = _make_site_class(base)
    return _SITE_CLASSES[base]


def _make_site_class(base: type[nn.Module]) -> type[nn.Module]:
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        site: Site | None = getattr(self, "_dropkey_site", None)
        if site is None:  # removed, and called through a forward that somebody kept: hooks of accelerate and the like
            return base.forward(self, *args, **kwargs)
        acts = site.acts(self.training)
        if not torch.compiler.is_compiling():
            site.follow(self.training, acts, (*args, *kwargs.values()))
        symbol = _symbol_among(site, *args, *kwargs.values())
        if symbol is not None:
            return _call_of_whole(symbol, self, args, kwargs)
        if not acts:
            run = tapped if listens_to(site) else base.forward
            return run(self, *args, **kwargs)
        return _acting(base, self, site, *_forbid_other_windows(site, args, kwargs))

    def reduce(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
        site = site_of(self)
        if site is not None and not site.slots:  # there for its listeners alone, whom a copy does not have
            return _rebuild_original, (base,), without_site(self)
        return _rebuild, (base,), self.__dict__.copy()

    def extra_repr(self: nn.Module) -> str:
        site = site_of(self)
        said = [base.extra_repr(self), *([] if site is None else map(str, site.slots))]
        return ", ".join(filter(None, said))

    members = {
        "forward": forward,
        "extra_repr": extra_repr,
        "__reduce_ex__": reduce,
        "__module__": base.__module__,
        "__doc__": base.__doc__,
    }
    return type(f"{base.__name__}Site", (base,), members)


def _acting(base: type[nn.Module], module: nn.Module, site: Site, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a forward pass in which something acts: without the keys that are dropped where that is possible."""
    forward_pass = ForwardPass(module, site.entry.one_mask)
    if site.entry.selects_keys:
        masked = partial(_routed, base, module, site, ForwardPass(module), *args, **kwargs)
        selected = forward_selected(module, site, forward_pass, masked, *args, **kwargs)
        if selected is not None:
            return selected
    return _routed(base, module, site, forward_pass, *args, **kwargs)


def _routed(
    base: type[nn.Module], module: nn.Module, site: Site, forward_pass: ForwardPass, *args: Any, **kwargs: Any
) -> Any:
    """Run a module's own forward with its attention calls sent to the site."""
    with Routing(site, forward_pass, num_heads_of(module) or 1):
        out = base.forward(module, *args, **kwargs)
    _require_called(site, forward_pass)
    return out


def _require_called(site: Site, forward_pass: ForwardPass) -> None:
    """Raise a SiteError if a forward pass of the module made no attention call: nothing is silently not applied."""
    if not forward_pass.num_calls:
        raise SiteError(
            f"{site.label} ran without calling scaled_dot_product_attention, so nothing could be dropped: if its "
            "forward computes the softmax itself, register the class with softmax=True, and with layout='b' if it "
            "does so on (batch * heads, queries, keys)"
        )
    if not torch.compiler.is_compiling():
        site.calls_per_pass = forward_pass.num_calls


def _symbol_among(site: Site, *inputs: Any) -> Proxy | None:
    """Return a symbol that torch.fx traces with in place of a tensor, if there is one and the site may act."""
    symbol = next((value for value in inputs if isinstance(value, Proxy)), None)
    return symbol if symbol is not None and any(slot.enabled for slot in site.slots) else None


def _call_of_whole(symbol: Proxy, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Proxy:
    """Put the module into torch.fx's graph as it is: it goes on to ask its site, in training and evaluation."""
    tracer = symbol.tracer
    assert isinstance(tracer, Tracer)
    return tracer.create_proxy("call_module", tracer.path_of_module(module), args, kwargs)


def _forbid_other_windows(
    site: Site, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Turn the finite negative numbers of a window mask argument into -inf: such a key must not beat a dropped one."""
    if site.entry.window_mask is None:
        return args, kwargs
    place, name = site.entry.window_mask
    mask = args[place] if place < len(args) else kwargs.get(name)
    if not isinstance(mask, Tensor) or not mask.is_floating_point():
        return args, kwargs
    mask = mask.masked_fill(mask < 0, -torch.inf)
    if place < len(args):
        return (*args[:place], mask, *args[place + 1 :]), kwargs
    return args, {**kwargs, name: mask}


def _rebuild(base: type[nn.Module]) -> nn.Module:
    """Make an empty instance of a site class for pickle and deepcopy, which cannot name the class itself."""
    cls = _site_class(base)
    return cls.__new__(cls)


def _rebuild_original(base: type[nn.Module]) -> nn.Module:
    """Make an empty instance of an attention class."""
    return base.__new__(base)
