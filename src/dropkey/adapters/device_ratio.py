"""A slot's drop ratio in the memory of GPUs: a captured CUDA graph reads what is there when it is replayed."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from dropkey.patterns import Pattern

__all__ = ["DeviceRatio"]

_Place = tuple[torch.device, Pattern, tuple[int, int]]


class DeviceRatio:
    """The ratio, and the thresholds of patterns that are no plain product of it, on every GPU that has asked for them.

    Setting the ratio writes them all, without waiting for a GPU.

    Args:
        kind: of the devices that have memory of their own.
    """

    def __init__(self, kind: str = "cuda") -> None:
        self._kind = kind
        self._ratios: dict[torch.device, Tensor] = {}
        self._thresholds: dict[_Place, Tensor] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return DeviceRatio, (self._kind,)  # a copy of a model may live on other devices

    def fill(self, ratio: Tensor) -> None:
        """Write a new ratio, float64 () on the CPU, wherever the old one is."""
        for tensor in self._ratios.values():
            tensor.fill_(float(ratio))
        for (_, pattern, grid_size), tensor in self._thresholds.items():
            tensor.fill_(int(pattern.seed_threshold(ratio, grid_size)))

    def on(self, device: torch.device, ratio: Tensor) -> Tensor:
        """Return the ratio, float64 (), on a device; what is there already is not read.

        While a graph is being compiled, nothing new is put on a device: then it is the ratio on the CPU.
        """
        if device.type != self._kind:
            return ratio
        if device not in self._ratios:
            if torch.compiler.is_compiling():
                return ratio
            with _disable_current_modes(), torch.inference_mode(False):
                self._ratios[device] = torch.full((), float(ratio), dtype=torch.float64, device=device)
        return self._ratios[device]

    def seed_threshold(
        self, device: torch.device, ratio: Tensor, pattern: Pattern, grid_size: tuple[int, int] | None
    ) -> Tensor | None:
        """Return the threshold of seed points, int64 (), on a GPU; None where the pattern has none, or elsewhere."""
        if device.type != self._kind or grid_size is None or not pattern.has_seed_threshold:
            return None
        place = device, pattern, grid_size
        if place not in self._thresholds:
            if torch.compiler.is_compiling():
                return None
            with _disable_current_modes(), torch.inference_mode(False):
                number = int(pattern.seed_threshold(ratio, grid_size))
                self._thresholds[place] = torch.full((), number, dtype=torch.int64, device=device)
        return self._thresholds[place]
