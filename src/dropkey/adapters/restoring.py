"""Running a model without a trace: random state, modes and buffers are put back."""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from torch import nn

__all__ = ["evaluating", "restored", "restored_modes", "restored_random_state"]


@contextlib.contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Put random state, every module's mode and every buffer back at the end."""
    buffers = {buffer: buffer.detach().clone() for buffer in model.buffers()}
    with restored_random_state(model), restored_modes(model):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in buffers.items():
                    buffer.copy_(value)


@contextlib.contextmanager
def restored_modes(model: nn.Module) -> Iterator[None]:
    """Put every module's mode back at the end."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode; every module's own mode comes back."""
    with restored_modes(model):
        model.eval()
        yield


def restored_random_state(model: nn.Module) -> AbstractContextManager[None]:
    """Put the random state of the CPU and of the model's GPUs back at the end."""
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    return torch.random.fork_rng(devices=list(devices))
