"""Which tensors are what torch itself makes: plain memory in a usual type, with nothing of somebody's own around it."""

from types import NoneType

import torch
from torch import Tensor, nn

__all__ = ["is_ordinary", "is_plain", "of_somebody"]

_PLAIN = (Tensor, nn.Parameter)
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def is_plain(tensor: Tensor) -> bool:
    """Say whether a tensor is torch's own class with numbers in memory: no subclass, fake tensor or transform's."""
    return type(tensor) in _PLAIN and tensor.layout is torch.strided and not tensor.is_meta


def is_ordinary(*tensors: Tensor | None) -> bool:
    """Say whether all tensors are of torch's own class and of a type that every backend knows how to refuse."""
    return all(t is None or (type(t) in _PLAIN and (t.dtype in _DTYPES or t.dtype == torch.bool)) for t in tensors)


def of_somebody(*classes: type) -> str | None:
    """Return the first class of tensors that is somebody's own, which may mean more by its operations, or None.

    Torch's tensors without data (fake ones) stand for its own class.

    Args:
        classes: of tensors, or of None where there is no tensor.
    """
    for cls in classes:
        if cls not in _PLAIN and cls is not NoneType and not cls.__module__.startswith("torch._subclasses"):
            return cls.__name__
    return None
