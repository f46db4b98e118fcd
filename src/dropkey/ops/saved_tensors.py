"""What the operators' own autograd formulas have in common: exact saved tensors, and gradients that are final."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dropkey.errors import BackendError
from dropkey.ops.transforms import active_transform

__all__ = ["LAYOUT_TAGS", "as_bits", "check_transforms", "final", "from_bits", "of_type"]

# A compiler must hand on strides as it has seen them: the output's follow the query's.
LAYOUT_TAGS = (getattr(torch.Tag, "needs_exact_strides", torch.Tag.needs_fixed_stride_order),)

_INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}
_FLOATS = {integer: floating for floating, integer in _INTEGERS.items()}


def as_bits(tensor: Tensor) -> Tensor:
    """Return a floating tensor as the integers that its bits are: hooks on saved tensors leave these alone."""
    return tensor.view(_INTEGERS[tensor.dtype])


def from_bits(tensor: Tensor) -> Tensor:
    """Undo ``as_bits``."""
    return tensor.view(_FLOATS[tensor.dtype])


def of_type(dtype: torch.dtype, *tensors: Tensor) -> list[Tensor]:
    """Return tensors as they were saved, where hooks on saved tensors hand them back in another type."""
    return [tensor if tensor.dtype is dtype else tensor.to(dtype) for tensor in tensors]


def check_transforms(backend: str) -> None:
    """Raise a BackendError where something looks into operations that is blind to native code."""
    transform = active_transform()
    if transform is not None:
        raise BackendError(f"backend {backend!r} cannot run this call: {transform}; use backend='auto'")


class _Final(torch.autograd.Function):
    """A gradient that cannot be differentiated again, and says so instead of counting as a constant."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, message: str, *causes: Tensor) -> Tensor:
        ctx.message = message
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise BackendError(ctx.message)


def final(grads: Sequence[Tensor | None], *causes: Tensor, message: str) -> tuple[Tensor | None, ...]:
    """Return gradients such that differentiating them once more, where somebody might, is an error."""
    if not torch.is_grad_enabled():
        return tuple(grads)
    return tuple(grad if grad is None else _Final.apply(grad, message, *causes) for grad in grads)
