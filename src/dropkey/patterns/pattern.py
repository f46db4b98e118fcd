"""The base of the patterns: what each draws, and what it says of itself."""

import math
from dataclasses import dataclass, fields
from typing import ClassVar

from torch import Tensor

from dropkey.errors import ArgumentError
from dropkey.patterns.geometry import Geometry

__all__ = ["Pattern"]

_NUM_SIGMAS = 6.0  # the share of a right mask lies further off once in 5e8 draws
_RESOLUTION = 2**-16  # of a ratio that is compared with 16 random bits


@dataclass(frozen=True)
class Pattern:
    """Base of the patterns: says which keys each query loses.

    A subclass is a frozen dataclass; its fields are the pattern's options, numbers or words with a default each. It
    defines ``name``, ``stream``, ``keep`` and ``num_draws``.

    Attributes:
        name: what the pattern is called in arguments, on the command line and in settings.
        stream: its number in the generator, of no other pattern: two patterns never draw the same bits.
        needs_grid: whether the keys must be patches of a known grid, after prefix tokens.
        has_seed_threshold: whether its random bits are compared with a number found from the ratio on the CPU, see
            ``seed_threshold``; otherwise with a plain product of the ratio.
    """

    name: ClassVar[str]
    stream: ClassVar[int]
    needs_grid: ClassVar[bool] = False
    has_seed_threshold: ClassVar[bool] = False

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Return the names of the options: the arguments that the class takes."""
        return tuple(field.name for field in fields(cls))

    def keep(self, seed: Tensor, drop_ratio: Tensor, geometry: Geometry) -> Tensor:
        """Draw a keep mask.

        Args:
            seed: int64 tensor of shape ().
            drop_ratio: float64 tensor of shape () with a value in [0, 1); on the CPU or on the seed's device.
            geometry: shape of the attention call.

        Returns:
            bool tensor on the seed's device, broadcastable to (B, H, Nq, Nk); True = the query sees the key.
        """
        raise NotImplementedError

    def check(self, geometry: Geometry) -> None:
        """Raise an ArgumentError if the pattern cannot be drawn for this geometry."""

    def num_draws(self, geometry: Geometry) -> float:
        """Return how many independent draws of equal weight a mask (B, H, Nq, Nk) is made of.

        It bounds how far the dropped share may lie from the ratio by chance: where draws overlap or weigh unequally,
        return fewer than there are.

        Raises:
            ArgumentError: the pattern does not say.
        """
        raise ArgumentError(
            f"pattern {self.name!r} does not say how many independent draws its mask is made of: define "
            "num_draws(geometry)"
        )

    def share_tolerance(self, drop_ratio: float, geometry: Geometry) -> float:
        """Return how far the dropped share of a right mask may lie from the ratio."""
        deviation = math.sqrt(drop_ratio * (1 - drop_ratio) / self.num_draws(geometry))
        return _NUM_SIGMAS * deviation + _RESOLUTION

    def true_ratio(self, drop_ratio: float, num_keys: int | None) -> str:
        """Describe the ratio that is really drawn, where that is not the one asked for; empty otherwise.

        Args:
            drop_ratio: above 0.
            num_keys: keys of the attention call, if known.
        """
        return ""

    def seed_threshold(self, drop_ratio: Tensor, grid_size: tuple[int, int]) -> Tensor:
        """Return what random bits are compared with, int64 (), on the CPU; only where ``has_seed_threshold``."""
        raise NotImplementedError

    def keep_below(self, seed_threshold: Tensor, seed: Tensor, drop_ratio: Tensor, geometry: Geometry) -> Tensor:
        """Draw as ``keep`` does, with the threshold of seeds that is there already, int64 () on the seed's device."""
        raise NotImplementedError
