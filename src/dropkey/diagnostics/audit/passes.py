"""Passes of a model that are watched, after which it is as it was."""

import contextlib
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dropkey.adapters.listeners import recording
from dropkey.adapters.record import Record
from dropkey.adapters.restoring import restored
from dropkey.diagnostics.audit.drop import Drop
from dropkey.diagnostics.audit.running import Running
from dropkey.diagnostics.audit.watch import Watch

__all__ = ["WatchedPass", "observe", "probe", "untouched"]

_ROWS, _REPEATS = 4096, 256


@dataclass
class WatchedPass:
    """What was seen in one forward pass.

    Args:
        drops: in the order in which they happened.
        running: which modules ran, in which mode.
        records: attention calls of each site in which a regularizer of ours acted, in the order that was asked for.
    """

    drops: list[Drop]
    running: Running
    records: list[list[Record]]


def observe(run: Callable[[], Any], sites: Sequence[nn.Module] = (), written_out: bool = False) -> WatchedPass:
    """Watch one call.

    Args:
        run: makes the call.
        sites: whose attention calls are recorded.
        written_out: compute attention without fused kernels, so that dropout inside is seen; on the CPU torch does so
            wherever there is any.
    """
    running = Running()
    watch = Watch(running)
    attention = sdpa_kernel(SDPBackend.MATH) if written_out else contextlib.nullcontext()
    with torch.no_grad(), recording(sites) as records, running.watching(), attention, watch:
        run()
    return WatchedPass(watch.drops, running, records)


def probe(module: nn.Module, example: Tensor) -> list[Drop]:
    """Watch a module that drops, on ones of many rows: a pass of the model draws too few for drop path."""
    shape = [1] * (example.dim() - 1)
    rows = example.new_ones([_ROWS, *shape])
    drops = observe(lambda: module(rows)).drops
    if drops and all(drop.unit in ("batch", "sample") and drop.draws == 1 for drop in drops):
        row = example.new_ones([2, *shape])
        drops = [drop for _ in range(_REPEATS) for drop in observe(lambda: module(row)).drops]
    return drops


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put modes, buffers and the state of every random generator back at the end; nothing is compiled meanwhile."""
    was_training = model.training
    python_state = random.getstate()
    numpy = sys.modules.get("numpy")
    numpy_state = None if numpy is None else numpy.random.get_state()
    with restored(model), torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        # Nothing is compiled, and what a wrapper adds to the hooks is harmless.
        warnings.filterwarnings("ignore", message="Using `torch.compile.* when there are global hooks")
        try:
            yield
        finally:
            model.train(was_training)  # for models that do more than set a flag; the flags themselves follow
            random.setstate(python_state)
            if numpy is not None:
                numpy.random.set_state(numpy_state)
