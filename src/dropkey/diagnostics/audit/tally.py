"""The drops of one kind in one module, added up over calls and passes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from dropkey.diagnostics.audit.bound import is_plausible
from dropkey.diagnostics.audit.drop import Drop, DropKind

__all__ = ["Tally", "by_owner"]

# What people call it, by what shares one draw.
_VALUES = {
    "element": "dropout",
    "channel": "channel dropout",
    "sample": "drop path",
    "batch": "drop path, one for the batch",
    "shared": "dropout, shared",
}
_OTHERS = {
    "weights": "attention dropout",
    "keys": "keys before softmax",
    "selection": "token drop",
    "opaque": "attention dropout",
    "other": "random numbers",
}


@dataclass
class Tally:
    """Drops of one kind in one module."""

    drops: Sequence[Drop]

    @property
    def kind(self) -> DropKind:
        return self.drops[0].kind

    @property
    def what(self) -> str:
        """What people call it."""
        units = {drop.unit for drop in self.drops}
        return _VALUES[units.pop() if len(units) == 1 else "shared"] if self.kind == "values" else _OTHERS[self.kind]

    @property
    def rate(self) -> float | None:
        """By the arguments of the call, where they can be read."""
        return self.drops[0].rate

    @property
    def draws(self) -> int:
        """Independent draws, 0 where there are none that can be counted."""
        return sum(drop.draws for drop in self.drops)

    @property
    def share(self) -> float | None:
        """What was dropped, or None where it was not seen."""
        if self.draws:
            return sum(drop.dropped for drop in self.drops) / self.draws
        shares = [drop.share for drop in self.drops if drop.share is not None]
        return sum(shares) / len(shares) if shares else None

    @property
    def acts(self) -> bool:
        """Whether anything was dropped, or would have been."""
        return bool(self.share) or bool(self.rate)

    def is_same_place(self, other: "Tally") -> bool:
        """Say whether two tallies of one module are of the same code, run in another mode."""
        if self.kind != other.kind:
            return False
        if self.rate is not None and other.rate is not None:
            return other.fits(self.rate)
        return not {drop.place for drop in self.drops}.isdisjoint(drop.place for drop in other.drops)

    def fits(self, rate: float) -> bool:
        """Say whether this may be a drop of that rate."""
        if self.rate is not None:
            return math.isclose(self.rate, rate, rel_tol=1e-5, abs_tol=1e-6)
        if self.share is None:
            return False
        if self.draws:
            return is_plausible(self.share, rate, self.draws)
        return abs(self.share - rate) < 0.1  # whole tokens, or blocks that overlap


def by_owner(drops: Iterable[Drop]) -> dict[nn.Module | None, list[Tally]]:
    """Add up the drops of each module: those of one rate, or where no rate is known, of one place in its forward."""
    groups: dict[tuple[object, ...], list[Drop]] = {}
    for drop in drops:
        known = ("place", drop.place) if drop.rate is None else ("rate", round(drop.rate, 6))
        groups.setdefault((drop.owner, drop.kind, *known), []).append(drop)
    tallies: dict[nn.Module | None, list[Tally]] = {}
    for group in groups.values():
        tallies.setdefault(group[0].owner, []).append(Tally(group))
    return tallies
