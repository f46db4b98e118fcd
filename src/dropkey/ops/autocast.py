"""Autocast, as torch's own attention has it: its inputs, and so its output, are of autocast's type."""

import contextlib
from typing import Any

import torch
from torch import Tensor

__all__ = ["autocast_like_sdpa", "without_autocast"]

_KNOWS_NOT = ("meta",)  # device types that torch has no autocast for


def autocast_like_sdpa(*tensors: Tensor | None) -> list[Any]:
    """Return tensors as torch's attention would take them under autocast: all of one type."""
    first = tensors[0]
    kind = first.device.type if isinstance(first, Tensor) else "meta"
    if kind in _KNOWS_NOT or not torch.is_autocast_enabled(kind):
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
    if kind in _KNOWS_NOT or not torch.is_autocast_enabled(kind):
        return contextlib.nullcontext()
    return torch.autocast(kind, enabled=False)
