"""Autocast, as torch's own attention has it: its inputs, and so its output, are of autocast's type."""

import contextlib
from typing import Any

import torch
from torch import Tensor

__all__ = ["autocast_like_sdpa", "is_autocasting", "without_autocast"]

_KNOWS_NOT = ("meta",)  # device types that torch has no autocast for


def is_autocasting(kind: str) -> bool:
    """Say whether autocast is on for a type of devices."""
    return kind not in _KNOWS_NOT and torch.is_autocast_enabled(kind)


def autocast_like_sdpa(*tensors: Tensor | None) -> list[Any]:
    """Return tensors as torch's attention would take them under autocast: all of one type."""
    first = tensors[0]
    kind = first.device.type if isinstance(first, Tensor) else "meta"
    if not is_autocasting(kind):
        return list(tensors)
    dtype = torch.get_autocast_dtype(kind)
    return [
        tensor.to(dtype)
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.dtype != torch.float64
        else tensor
        for tensor in tensors
    ]


def without_autocast(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which the types of a backend's own arithmetic are what it says."""
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if is_autocasting(kind) else contextlib.nullcontext()
