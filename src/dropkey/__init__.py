"""Attention regularization for Vision Transformers: DropKey that is right, fast and one line."""

import importlib
from typing import TYPE_CHECKING, Any

from dropkey import schedules
from dropkey.adapters.apply import apply
from dropkey.adapters.handle import Handle
from dropkey.adapters.handles import handle, handles
from dropkey.adapters.registry import register
from dropkey.alignment import MonteCarlo, monte_carlo
from dropkey.errors import ArgumentError, BackendError, DropKeyError, SiteError
from dropkey.ops.attention import attention, keep_mask
from dropkey.ops.dispatch import backends
from dropkey.patterns import Block, Column, Cross, Element, Pattern, Token
from dropkey.regularizers import AttentionDropout, DropKey, LocalityAttention, ReAttention

if TYPE_CHECKING:
    from dropkey.diagnostics.audit.run import audit

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "AttentionDropout",
    "BackendError",
    "Block",
    "Column",
    "Cross",
    "DropKey",
    "DropKeyError",
    "Element",
    "Handle",
    "LocalityAttention",
    "MonteCarlo",
    "Pattern",
    "ReAttention",
    "SiteError",
    "Token",
    "apply",
    "attention",
    "audit",
    "backends",
    "handle",
    "handles",
    "keep_mask",
    "monte_carlo",
    "register",
    "schedules",
]


# Imported when they are first asked for: dropkey.models needs timm, and the rest would make the import slower.
_LATER = {
    "audit": "dropkey.diagnostics.audit.run",
    "capture": "dropkey.diagnostics.capture",
    "diagnose": "dropkey.diagnostics.diagnose",
}


def __getattr__(name: str) -> Any:
    """Import what is not needed by everybody when it is first asked for."""
    if name in ("models", "diagnostics"):
        return importlib.import_module(f"dropkey.{name}")
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'dropkey' has no attribute {name!r}")
