"""Running a model without a trace: random state, modes and buffers are put back."""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from torch import nn

__all__ = ["restored", "restored_random_state"]


@contextlib.contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Put random state, every module's mode and every buffer back at the end."""
    modes = {module: module.training for module in model.modules()}
    buffers = {buffer: buffer.detach().clone() for buffer in model.buffers()}
    with restored_random_state(model):
        try:
            yield
        finally:
            for module, training in modes.items():
                module.training = training
            with torch.no_grad():
                for buffer, value in buffers.items():
                    buffer.copy_(value)


def restored_random_state(model: nn.Module) -> AbstractContextManager[None]:
    """Put the random state of the CPU and of the model's GPUs back at the end."""
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    return torch.random.fork_rng(devices=list(devices))
