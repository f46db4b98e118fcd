"""A slot: one regularizer at one site."""

import threading
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

from dropkey.adapters.device_ratio import DeviceRatio
from dropkey.adapters.discover import Found
from dropkey.adapters.entry import Entry
from dropkey.regularizers import Regularizer
from dropkey.schedules import drawn_ratio

__all__ = ["HandleId", "Slot"]


class HandleId:
    """What the slots of one handle have in common: the same object, which is no longer the same in a copy."""


class Slot:
    """One regularizer at one site: its ratio here, and whether it acts.

    What ``acts`` reads are plain booleans and the ratio is a tensor, so that a compiled graph is guarded by ratio > 0
    alone and not by the ratio's value. What the regularizer does at a site is in its subclass: see ``slots``.
    """

    place: ClassVar[str]  # attribute of a site that holds it
    drops: ClassVar[bool] = True  # whether it drops keys or weights, and so has a drop ratio
    columns: ClassVar[tuple[str, ...]] = ("drop ratio", "backend")  # of the handle's table

    def __init__(self, regularizer: Regularizer, handle_id: HandleId, drop_ratio: float, backend: str) -> None:
        self.regularizer = regularizer
        self.handle_id = handle_id
        self.backend = backend
        self.enabled = True
        self.sampling = False
        # A number in memory whatever the default device, and where apply runs on fake tensors or in inference mode.
        with _disable_current_modes(), torch.inference_mode(False):
            self.ratio_tensor = torch.zeros((), dtype=torch.float64, device="cpu")
        self.on_devices = DeviceRatio()
        self.drop_ratio = drop_ratio

    @property
    def drop_ratio(self) -> float:
        """Share of keys dropped here, in [0, 1)."""
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

    @classmethod
    def check_backend(cls, backend: str) -> None:
        """Raise an ArgumentError for a backend, known as it is, that cannot run this regularizer."""

    @classmethod
    def check_applicable(cls, f: Found) -> None:
        """Raise a SiteError for an attention module that cannot take this regularizer."""

    def unfit(self, found: Sequence[Found]) -> list[str]:
        """Return "name (Class: why)" of known attention modules that this regularizer is not for."""
        return []

    def put_in(self, f: Found) -> None:
        """Give a module that has become a site what else this regularizer needs there."""

    def take_out(self, module: nn.Module) -> None:
        """Take away again what ``put_in`` has given."""

    def cells(self, module: nn.Module, entry: Entry, num_keys: int | None) -> list[str]:
        """Return what stands in this slot's columns of the handle's table.

        Args:
            module: that carries the site.
            entry: what is special about its class.
            num_keys: that each query has, if known.
        """
        return [f"{drawn_ratio(self.drop_ratio):.4g}", self.backend]

    @property
    def _state(self) -> str:
        """What ``print(model)`` adds while this slot is switched off."""
        return "" if self.enabled else ", disabled"
