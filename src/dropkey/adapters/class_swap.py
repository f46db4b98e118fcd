"""The default way into a module: give it a subclass of its own class.

The subclass runs the module's own forward inside a mode that routes its attention call to the site. Nothing of the
module is written again, ``isinstance`` and the state_dict stay as they were, and taking it out is one assignment.
"""

from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy, Tracer
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from dropkey.adapters.forward_pass import Pass
from dropkey.adapters.heads import HEAD_COUNTS, num_heads_of
from dropkey.adapters.inner_checkpoint import refuse_inner_checkpoint
from dropkey.adapters.layout import fold, unfold
from dropkey.adapters.mixing import mixer_of
from dropkey.adapters.registry import entry_for
from dropkey.adapters.site import Site, attach, detach, require_called, site_of, without_site
from dropkey.adapters.token_selection import forward_selected
from dropkey.adapters.transformers import implementation_problem
from dropkey.errors import ArgumentError, SiteError, first_line
from dropkey.ops.autocast import autocast_like_sdpa
from dropkey.ops.operands import dense_bias
from dropkey.ops.transforms import saving_hooks

__all__ = ["check_ours", "check_swappable", "patched_since", "replaced", "swap_in", "swap_out"]

# Each softmax of torch, with its parameters in order; nn.Softmax calls the functional one.
_SOFTMAXES: dict[Callable[..., Any], tuple[str, ...]] = {
    torch.Tensor.softmax: ("input", "dim", "dtype"),
    torch.softmax: ("input", "dim", "dtype"),
    torch.special.softmax: ("input", "dim", "dtype"),
    F.softmax: ("input", "dim", "_stacklevel", "dtype"),
}
_FILLS = (torch.Tensor.masked_fill, torch.masked_fill)


class Routing(TorchFunctionMode):
    """Sends attention calls made inside of one forward pass to a site; any other function runs as it is."""

    def __init__(self, site: Site, forward: Pass, num_heads: int) -> None:
        super().__init__()
        self.site = site
        self.forward = forward
        self.num_heads = num_heads
        self.autograd = _autograd_state()
        self.weights: Tensor | None = None  # that a softmax has just given, where the module's own dropout gives way

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        entry = self.site.entry
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        if func in _SOFTMAXES and entry.routes_softmax:
            return self._softmax(func, args, kwargs)
        if func is F.dropout and self.weights is not None and args[:1] and args[0] is self.weights:
            return self.weights
        if func in _FILLS and entry.window_mask_value is not None:
            return self._masked_fill(func, *args, **kwargs)
        if func is F.multi_head_attention_forward:
            with self:
                return unguarded_multi_head_attention(*args, **kwargs)
        return func(*args, **kwargs)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | Tensor | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        self._refuse_inner_checkpoint()
        query, key, value, attn_mask = autocast_like_sdpa(query, key, value, attn_mask)
        layout = self._layout(query)
        if layout == "bh":
            return self.site.attend(self.forward, query, key, value, attn_mask, is_causal, scale, dropout_p, enable_gqa)
        if layout is None:
            raise SiteError(
                f"{self.site.name} ({self.site.original_class.__name__}) calls attention on a query of shape "
                f"{tuple(query.shape)}, but only (batch, heads, tokens, head_dim) is known here: register the class "
                "with layout='b' if that is (batch * heads, tokens, head_dim)"
            )
        try:
            lengths = query.shape[-2], key.shape[-2]
            attn_mask, is_causal = dense_bias(attn_mask, is_causal, lengths, query.device)
            if attn_mask is not None:
                attn_mask = self._fold(attn_mask.expand(*query.shape[:-1], key.shape[-2]), layout)
            key, value = (tensor.expand(*query.shape[:-2], -1, -1) for tensor in (key, value))
        except (ArgumentError, RuntimeError) as error:
            raise SiteError(
                f"{self.site.label} attends with shapes that do not fit a query of "
                f"{tuple(query.shape)}: {first_line(error)}"
            ) from None
        q, k, v = (self._fold(tensor, layout) for tensor in (query, key, value))
        out = self.site.attend(self.forward, q, k, v, attn_mask, is_causal, scale, dropout_p)
        return unfold(out, layout, _num_windows(query, layout))

    def _refuse_inner_checkpoint(self) -> None:
        if self.autograd is not None and self.autograd[0] and _autograd_state() != self.autograd:
            refuse_inner_checkpoint(self.site)

    def _softmax(self, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        given = dict(zip(_SOFTMAXES[func], args, strict=False)) | kwargs
        logits: Tensor = given["input"]
        layout = self._layout(logits)
        if layout is None or given.get("dim") not in (-1, logits.dim() - 1) or "out" in given:
            return func(*args, **kwargs)
        self._refuse_inner_checkpoint()
        wide = logits.to(given.get("dtype") or logits.dtype)
        attn = self.site.drop_logits(self.forward, self._fold(wide, layout))
        attn = unfold(attn, layout, _num_windows(logits, layout))
        self.weights = attn if any(slot.enabled for slot in self.site.droppers()) else None
        return attn

    def _masked_fill(self, func: Callable[..., Tensor], tensor: Tensor, mask: Tensor, value: Any) -> Tensor:
        """Let a module write its window mask with forbidden keys in place of its finite number."""
        return func(tensor, mask, -torch.inf if value == self.site.entry.window_mask_value else value)

    def _layout(self, tensor: Tensor) -> str | None:
        """Name the axes before the last two; None if this module is not known to have so many."""
        own = self.site.entry.layout
        if tensor.dim() == len(own) + 2:
            return own
        return "bh" if tensor.dim() == 4 else None

    def _fold(self, tensor: Tensor, layout: str) -> Tensor:
        if layout.startswith("g") and tensor.shape[0] % self.num_heads:
            raise SiteError(
                f"{self.site.label} attends with a tensor of shape {tuple(tensor.shape)}, whose first axis is not a "
                f"multiple of its {self.num_heads} heads"
            )
        return fold(tensor, layout, self.num_heads)


def _autograd_state() -> tuple[bool, object] | None:
    """What a checkpoint changes while it runs: whether gradients are recorded, and how tensors are saved for them."""
    return None if torch.compiler.is_compiling() else (torch.is_grad_enabled(), saving_hooks())


def _num_windows(tensor: Tensor, layout: str) -> int:
    return tensor.shape[layout.index("w")] if "w" in layout else 1


def _without_override_check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of torch that does not look for overrides first, so that calls inside of it can be routed."""
    assert isinstance(function, FunctionType)
    names = {**function.__globals__, "has_torch_function": lambda tensors: False}
    copy = FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


unguarded_multi_head_attention = _without_override_check(F.multi_head_attention_forward)


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
            return base.forward(self, *args, **kwargs)
        return _acting(base, self, site, *_forbid_other_windows(site, args, kwargs))

    def reduce(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
        site = site_of(self)
        if site is not None and not site.slots():  # there for its listeners alone, whom a copy does not have
            return _rebuild_original, (base,), without_site(self)
        return _rebuild, (base,), self.__dict__.copy()

    def extra_repr(self: nn.Module) -> str:
        site = site_of(self)
        said = [base.extra_repr(self), *([] if site is None else map(str, site.slots()))]
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
    forward = Pass(module.training, site.entry.one_mask, mixer_of(module))
    if site.entry.selects_keys:
        masked = partial(_routed, base, module, site, Pass(module.training), *args, **kwargs)
        selected = forward_selected(module, site, forward, masked, *args, **kwargs)
        if selected is not None:
            return selected
    return _routed(base, module, site, forward, *args, **kwargs)


def _routed(base: type[nn.Module], module: nn.Module, site: Site, forward: Pass, *args: Any, **kwargs: Any) -> Any:
    """Run a module's own forward with its attention calls sent to the site."""
    with Routing(site, forward, num_heads_of(module) or 1):
        out = base.forward(module, *args, **kwargs)
    require_called(site, forward)
    return out


def _symbol_among(site: Site, *inputs: Any) -> Proxy | None:
    """Return a symbol that torch.fx traces with in place of a tensor, if there is one and the site may act."""
    symbol = next((value for value in inputs if isinstance(value, Proxy)), None)
    return symbol if symbol is not None and any(slot.enabled for slot in site.slots()) else None


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
