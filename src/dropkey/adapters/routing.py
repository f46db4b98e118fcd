"""A mode that sends the attention calls of a module's own forward to its site."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from dropkey.adapters.forward_pass import ForwardPass
from dropkey.adapters.inner_checkpoint import refuse_inner_checkpoint
from dropkey.adapters.layout import fold, unfold
from dropkey.adapters.site import Site
from dropkey.errors import ArgumentError, SiteError, first_line
from dropkey.ops.autocast import autocast_like_sdpa, is_autocasting
from dropkey.ops.call import AttentionCall
from dropkey.ops.operands import broadcast, checked_call, dense_bias
from dropkey.ops.transforms import saving_hooks

__all__ = ["Routing"]

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

    def __init__(self, site: Site, forward_pass: ForwardPass, num_heads: int) -> None:
        super().__init__()
        self.site = site
        self.forward_pass = forward_pass
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
        if is_autocasting(query.device.type):
            query, key, value, attn_mask = autocast_like_sdpa(query, key, value, attn_mask)
        layout = self._layout_of_query(query)
        if layout == "bh":
            call = self._call(query, key, value, attn_mask, is_causal, scale, enable_gqa)
            return self.site.attend(self.forward_pass, call, dropout_p)
        call = self._folded_call(layout, query, key, value, attn_mask, is_causal, scale)
        out = self.site.attend(self.forward_pass, call, dropout_p)
        return unfold(out, layout, _num_windows(query, layout))

    def _layout_of_query(self, query: Tensor) -> str:
        layout = self._layout(query)
        if layout is None:
            raise SiteError(
                f"{self.site.label} calls attention on a query of shape {tuple(query.shape)}, but only (batch, heads, "
                "tokens, head_dim) is known here: register the class with layout='b' if that is (batch * heads, "
                "tokens, head_dim)"
            )
        return layout

    def _folded_call(
        self,
        layout: str,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None,
        is_causal: bool,
        scale: float | Tensor | None,
    ) -> AttentionCall:
        """Return a call of another layout as (batch, heads, tokens, head_dim), with the mask written out."""
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
        return self._call(q, k, v, attn_mask, is_causal, scale, True)

    def _call(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_bias: Tensor | None,
        is_causal: bool,
        scale: float | Tensor | None,
        grouped: bool,
    ) -> AttentionCall:
        """Return the call as torch's attention would take it."""
        try:
            return broadcast(checked_call(query, key, value, attn_bias, is_causal, scale, grouped=grouped))
        except ArgumentError as error:
            raise SiteError(f"{self.site.label}: {error}") from None

    def _refuse_inner_checkpoint(self) -> None:
        if self.autograd is not None and self.autograd[0] and _autograd_state() != self.autograd:
            refuse_inner_checkpoint(self.site)

    def _softmax(self, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        found = self._logits_of(func, args, kwargs)
        if found is None:
            return func(*args, **kwargs)
        logits, layout = found
        self._refuse_inner_checkpoint()
        attn = self.site.attend_logits(self.forward_pass, self._fold(logits, layout))
        attn = unfold(attn, layout, _num_windows(logits, layout))
        self.weights = attn if self.site.slots.replaces_dropout else None
        return attn

    def _logits_of(
        self, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Tensor, str] | None:
        """Return the logits of a softmax over keys in the type that it gives, and their layout; None if it is none."""
        given = dict(zip(_SOFTMAXES[func], args, strict=False)) | kwargs
        logits: Tensor = given["input"]
        layout = self._layout(logits)
        if layout is None or given.get("dim") not in (-1, logits.dim() - 1) or "out" in given:
            return None
        return logits.to(given.get("dtype") or logits.dtype), layout

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
    """Return a function of torch that does not look for overrides first, so that calls inside of it can be routed.

    It is torch's code with one global replaced: should torch rename ``has_torch_function``, the mode would be entered
    for the function as a whole again, and sites of nn.MultiheadAttention would raise that nothing was called.
    """
    assert isinstance(function, FunctionType)
    names = {**function.__globals__, "has_torch_function": lambda tensors: False}
    copy = FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


unguarded_multi_head_attention = _without_override_check(F.multi_head_attention_forward)
