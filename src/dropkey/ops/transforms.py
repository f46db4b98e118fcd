"""What torch.func and forward-mode differentiation do to a call, and which of it a backend can follow."""

import torch
from torch._C import _functorch

from dropkey.errors import ArgumentError

__all__ = ["active_transform", "beyond_fused", "check_randomness", "saving_hooks"]


def active_transform() -> str | None:
    """Return the name of a transform that sees every operation now, or None; a compiled graph has its own.

    A native kernel can be differentiated once, backwards; no transform looks into it.
    """
    if torch.compiler.is_compiling():
        return None
    if torch._C._are_functorch_transforms_active():
        return "a transform of torch.func is active (grad, vjp, jvp or vmap)"
    return "forward-mode differentiation is active" if _is_forward_mode() else None


def beyond_fused(device: torch.device) -> str | None:
    """Return the name of a transform that torch's fused attention does not have a formula for, or None."""
    if torch.compiler.is_compiling():
        return None
    if _is_forward_mode():
        return "forward-mode differentiation is active"
    if not torch._C._are_functorch_transforms_active():
        return None
    kinds = [level.key() for level in _levels()]
    if kinds.count(_functorch.TransformType.Grad) > 1:
        return "a gradient of a gradient is being taken"
    is_batched = _functorch.TransformType.Vmap in kinds and device.type == "cpu"
    return "torch.vmap is active, which would run it on one example after another" if is_batched else None


def saving_hooks() -> object:
    """Return the hooks that tensors saved for a backward pass go through now, or None."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True)


def check_randomness() -> None:
    """Raise an ArgumentError where torch.vmap has not been told what its examples share of a random draw."""
    if torch.compiler.is_compiling() or not torch._C._are_functorch_transforms_active():
        return
    for level in _levels():
        if level.key() != _functorch.TransformType.Vmap:
            continue
        if _functorch.CVmapInterpreterPtr(level).randomness() == _functorch.RandomnessType.Error:
            raise ArgumentError(
                "torch.vmap over an attention that drops keys: say randomness='different' or randomness='same', or "
                "give the attention a seed"
            )


def _levels() -> list[_functorch.CInterpreter]:
    return _functorch.get_interpreter_stack() or []


def _is_forward_mode() -> bool:
    return torch.autograd.forward_ad._current_level >= 0
