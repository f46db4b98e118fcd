"""What all slots that drop have in common: a drop ratio that may change at any time, and silence in evaluation."""

import threading
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

from dropkey.adapters.device_ratio import DeviceRatio
from dropkey.adapters.discover import Found
from dropkey.adapters.entry import Entry
from dropkey.adapters.slot import HandleId, Slot
from dropkey.ops.ordinary import is_plain
from dropkey.schedules import drawn_ratio

__all__ = ["DropSlot"]


class DropSlot(Slot):
    """A slot that drops keys or weights, in training or while Monte Carlo samples.

    What ``acts`` reads are plain booleans and the ratio is a tensor, so that a compiled graph is guarded by ratio > 0
    alone and not by the ratio's value.
    """

    drops = True
    does = "dropped"
    columns = ("drop ratio", "backend")

    def __init__(self, regularizer: Any, handle_id: HandleId, drop_ratio: float, backend: str) -> None:
        # A number in memory whatever the default device, and where apply runs on fake tensors or in inference mode.
        with _disable_current_modes(), torch.inference_mode(False):
            self.ratio_tensor = torch.zeros((), dtype=torch.float64, device="cpu")
        self.on_devices = DeviceRatio()
        self.sampling = False
        super().__init__(regularizer, handle_id, drop_ratio, backend)

    @property
    def drop_ratio(self) -> float:
        """Share dropped here, in [0, 1)."""
        # Fake tensors must not be read, and numbers be no guards of a compiled graph.
        return float(self.ratio_tensor) if torch.compiler.is_compiling() else self._drop_ratio

    @drop_ratio.setter
    def drop_ratio(self, value: float) -> None:
        with _disable_current_modes():
            self.ratio_tensor.fill_(value)
            self.on_devices.fill(self.ratio_tensor)
        self._drop_ratio = float(value)
        self.is_positive = drawn_ratio(value) > 0

    @property
    def sampling(self) -> bool:
        """Whether to act in evaluation too, in the thread that has set it alone: Monte Carlo."""
        thread = self._sampling_thread
        return thread is not None and (torch.compiler.is_compiling() or thread == threading.get_ident())

    @sampling.setter
    def sampling(self, value: bool) -> None:
        self._sampling_thread = threading.get_ident() if value else None

    def acts(self, training: bool) -> bool:
        """Say whether this slot changes a forward pass of a module in this mode."""
        return self.enabled and self.is_positive and (training or self.sampling)

    def put_in(self, f: Found) -> None:
        """Lay the ratio on the module's device: a graph that is compiled at first finds it there."""
        parameter = next(f.module.parameters(), None)
        if parameter is not None and is_plain(parameter):
            self.on_devices.on(parameter.device, self.ratio_tensor)

    def cells(self, module: nn.Module, entry: Entry, num_keys: int | None) -> list[str]:
        """Return the ratio and the backend."""
        return [f"{drawn_ratio(self.drop_ratio):.4g}", self.backend]
