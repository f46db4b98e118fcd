"""What the forward passes of a site were made with: a recomputation inside of a backward pass must be made alike.

Activation checkpointing runs a module again in the backward pass, with the random state of its forward. Ratio, grid and
whether anything acts are read from the site, and may have changed since: the gradients would be those of another mask.
Nothing says which forward pass is being repeated but its random state, so that is what passes are known by.
"""

import ctypes
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from dropkey.errors import SiteError
from dropkey.ops.statistics import is_recomputing
from dropkey.regularizers import Regularizer

__all__ = ["Acting", "PassMemory", "random_state"]

_TELLING_BYTES = 256  # of the Mersenne Twister: where it stands, and words that change when it goes round
_MOST = 1024  # passes of one module before the backward pass of the first of them


class Acting(NamedTuple):
    """What one slot makes a pass with, besides inputs, parameters and random state."""

    regularizer: Regularizer
    drop_ratio: float
    grid_size: tuple[int, int] | None
    num_prefix_tokens: int


Settings = tuple[Acting, ...]


class PassMemory:
    """The settings of the last forward passes of one module in which something acted, by their random state."""

    def __init__(self) -> None:
        self._settings: OrderedDict[Hashable, Settings] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._settings)

    def __reduce__(self) -> tuple[Any, ...]:
        return PassMemory, ()  # a copy of a module has had no pass yet

    def follow(self, name: str, acts: bool, inputs: tuple[object, ...], settings: Settings) -> None:
        """Note a forward pass, or see that a recomputation in the backward pass is made as its forward pass was.

        Args:
            name: of the site.
            acts: whether anything acts in this pass.
            inputs: of the module.
            settings: of what draws in it.

        Raises:
            SiteError: the settings have changed since the forward pass.
        """
        recomputes = is_recomputing()
        if not acts and not (recomputes and self):
            return
        state = random_state(inputs)
        if state is None:
            return
        if recomputes:
            self.check(name, state, settings)
        elif settings:
            self.note(state, settings)

    def note(self, state: Hashable, settings: Settings) -> None:
        """Note a forward pass: its random state, and all else that it is made with."""
        self._settings[state] = settings
        if len(self._settings) > _MOST:
            self._settings.popitem(last=False)

    def check(self, name: str, state: Hashable, settings: Settings) -> None:
        """See that a recomputation is made as the forward pass with this random state.

        Args:
            name: of the site.
            state: see ``random_state``.
            settings: of the recomputation; empty if nothing acts.

        Raises:
            SiteError: other settings, or the random state of no forward pass.
        """
        before = self._settings.get(state, ())
        if before == settings:
            return
        if before:
            raise SiteError(
                f"{name} is recomputed in a backward pass with {_in_words(settings)}, but its forward pass had "
                f"{_in_words(before)}: change ratios between steps, not between forward and backward"
            )
        raise SiteError(
            f"{name} is recomputed in a backward pass, but in no forward pass did it act with this random state: "
            "checkpoint with preserve_rng_state=True, and enable or change ratios between steps only"
        )


def _in_words(settings: Settings) -> str:
    each = (f"{type(s.regularizer).__name__} at {s.drop_ratio:.4g} on grid {s.grid_size}" for s in settings)
    return " and ".join(each) or "nothing that acts"


def random_state(inputs: tuple[Any, ...]) -> Hashable | None:
    """Return what tells the state of torch's generator from others, without waiting for a device; None if unknown.

    Args:
        inputs: of a module; the first tensor says which generator counts.
    """
    tensor = next((value for value in inputs if isinstance(value, Tensor)), None)
    if tensor is None or type(tensor) is FakeTensor:
        return None
    device = tensor.device
    if device.type == "cpu":
        state = torch.default_generator.get_state()
        return ctypes.string_at(state.data_ptr(), _TELLING_BYTES)
    if device.type == "cuda" and not torch.cuda.is_current_stream_capturing():
        generator = torch.cuda.default_generators[tensor.get_device()]
        return generator.initial_seed(), generator.get_offset()
    return None
