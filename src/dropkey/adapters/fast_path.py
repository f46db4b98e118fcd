"""Torch's fast paths for evaluation, which run around its attention, or the calls that it makes.

Without gradients ``nn.MultiheadAttention`` runs one native function, and ``nn.TransformerEncoderLayer`` another that
does not even call its attention module. The bits of their outputs are not those of the ordinary path. So whoever only
listens lets them run and hears the ordinary path beside them: it draws nothing, and its outputs are thrown away.
"""

import contextlib
from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from dropkey.adapters.site import Site, site_of
from dropkey.errors import SiteError

__all__ = ["encoder_layers_heard", "passes_by", "without_fast_path"]


def passes_by(module: nn.Module) -> bool:
    """Say whether a module may run torch's fast path in place of what it would otherwise call."""
    may = isinstance(module, nn.MultiheadAttention | nn.TransformerEncoderLayer)
    return may and not module.training and not torch.is_grad_enabled() and torch.backends.mha.get_fastpath_enabled()


@contextlib.contextmanager
def without_fast_path() -> Iterator[None]:
    """Let torch take none of its fast paths meanwhile."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@contextlib.contextmanager
def encoder_layers_heard(model: nn.Module) -> Iterator[None]:
    """Let those who listen to the attention of torch's encoder layers hear it where a layer runs around it."""
    layers = [module for module in model.modules() if isinstance(module, nn.TransformerEncoderLayer)]
    layers = [layer for layer in layers if "forward" not in layer.__dict__]  # whoever patches a layer keeps it
    for layer in layers:
        layer.__dict__["forward"] = MethodType(_forward_heard, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]


def _forward_heard(layer: nn.TransformerEncoderLayer, src: Tensor, *args: Any, **kwargs: Any) -> Any:
    site = site_of(layer.self_attn)
    forward = type(layer).forward
    if site is None or not site.is_heard or not passes_by(layer):
        return forward(layer, src, *args, **kwargs)
    if src.is_nested:
        raise SiteError(
            f"{site.label} cannot be heard: torch's encoder packs padded sequences into a nested tensor here; make it "
            "with enable_nested_tensor=False"
        )
    with _unheard(site):
        out = forward(layer, src, *args, **kwargs)
    with without_fast_path():
        forward(layer, src, *args, **kwargs)
    return out


@contextlib.contextmanager
def _unheard(site: Site) -> Iterator[None]:
    listeners, site.listeners = site.listeners, ()
    try:
        yield
    finally:
        site.listeners = listeners
