"""Batch statistics under activation checkpointing: counted in the forward pass, not again when it is recomputed."""

import torch
from torch import Tensor, nn

__all__ = ["normalize_once"]


def normalize_once(norm: nn.Module, x: Tensor) -> Tensor:
    """Run a normalisation layer, leaving its running statistics alone while autograd recomputes a checkpoint.

    Torch's own layers count a batch twice there. In a compiled graph torch decides itself what is recomputed.

    Args:
        norm: BatchNorm, SyncBatchNorm, or any module; only its buffers are guarded.
        x: its input.

    Returns:
        ``norm(x)``.
    """
    if not _is_recomputing():
        return _run(norm, x)
    kept = dict(norm._buffers)
    # Copies, not None: a checkpoint must save as many tensors when it is recomputed as it did at first.
    norm._buffers.update({name: buffer if buffer is None else buffer.clone() for name, buffer in kept.items()})
    try:
        return _run(norm, x)
    finally:
        norm._buffers.update(kept)


def _run(norm: nn.Module, x: Tensor) -> Tensor:
    out = norm(x)
    assert isinstance(out, Tensor)
    return out


def _is_recomputing() -> bool:
    """Say whether this runs inside of a backward pass, where nothing but recomputation calls a module."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
