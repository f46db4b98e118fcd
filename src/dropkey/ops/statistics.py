"""Batch statistics under activation checkpointing: counted in the forward pass, not again when it is recomputed."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

__all__ = ["count_batch", "counts_batches", "is_recomputing", "normalize_once", "uncounted"]


def normalize_once(norm: nn.Module, x: Tensor) -> Tensor:
    """Run a normalization layer, leaving its running statistics alone while autograd recomputes a checkpoint.

    Torch's own layers count a batch twice there. In a compiled graph torch decides itself what is recomputed.

    Args:
        norm: BatchNorm, SyncBatchNorm, or any module; only its buffers are guarded.
        x: its input.

    Returns:
        ``norm(x)``.
    """
    if not is_recomputing():
        return _run(norm, x)
    kept = dict(norm._buffers)
    # Copies, not None: a checkpoint must save as many tensors when it is recomputed as it did at first.
    norm._buffers.update({name: buffer if buffer is None else buffer.clone() for name, buffer in kept.items()})
    try:
        return _run(norm, x)
    finally:
        norm._buffers.update(kept)


@contextlib.contextmanager
def uncounted(module: nn.Module) -> Iterator[None]:
    """Let a module run once more on what it has seen: its buffers, running statistics among them, stay as they are."""
    kept = [(each, dict(each._buffers)) for each in module.modules()]
    for each, buffers in kept:
        each._buffers.update({name: None if buffer is None else buffer.clone() for name, buffer in buffers.items()})
    try:
        yield
    finally:
        for each, buffers in kept:
            each._buffers.update(buffers)


def count_batch(norm: nn.BatchNorm2d, mean: Tensor, var: Tensor, count: int) -> None:
    """Count a batch whose statistics are known in the running ones, as the layer itself does; not while recomputing.

    Args:
        norm: with a momentum.
        mean: (C,) of the batch.
        var: (C,) of the batch, divided by ``count``.
        count: number of values of a channel, 2 or more.
    """
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None or is_recomputing():
        return
    assert norm.momentum is not None
    norm.num_batches_tracked.add_(1)
    # By `data`, as torch's layer does below autograd: a graph of an earlier call may hold the running statistics.
    for running, batch in ((norm.running_mean, mean), (norm.running_var, var * (count / (count - 1)))):
        running.data.lerp_(batch.to(running.dtype), norm.momentum)


def counts_batches(norm: object) -> bool:
    """Say whether a layer changes running statistics in place when it is called, and these are a module's own."""
    running = getattr(norm, "running_mean", None)
    is_own = isinstance(running, Tensor) and not torch._C._functorch.is_functorch_wrapped_tensor(running)
    return is_own and bool(getattr(norm, "training", False))


def _run(norm: nn.Module, x: Tensor) -> Tensor:
    out = norm(x)
    assert isinstance(out, Tensor)
    return out


def is_recomputing() -> bool:
    """Say whether this runs inside of a backward pass, where nothing but recomputation calls a module."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
