"""The settings of a handle as plain data: what was applied, where, and whether it acts.

Strings, numbers, booleans, lists and dicts alone, so that they go through JSON, YAML and
``torch.load(weights_only=True)``::

    {"regularizer": {"name": "DropKey", "drop_ratio": 0.3, "schedule": "linear_decay", "pattern": {"name": "element"},
                     "top_share": 1.0},
     "enabled": True,
     "drop_ratios": {"blocks.0.attn": 0.3, "blocks.1.attn": 0.0}}

Backend, grid size and prefix tokens are no part of them: they belong to the machine and to the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from dropkey.adapters.site import Site
from dropkey.adapters.slot import Slot
from dropkey.arguments import check_flag
from dropkey.errors import ArgumentError, did_you_mean
from dropkey.patterns import PATTERNS, Pattern
from dropkey.regularizers import REGULARIZERS, Regularizer
from dropkey.schedules import check_drop_ratio

__all__ = ["Settings"]


class Settings(NamedTuple):
    """What a handle's ``state_dict`` holds."""

    regularizer: Regularizer
    enabled: bool
    drop_ratios: dict[str, float]  # of every site, by its name

    @classmethod
    def of(cls, rows: Sequence[tuple[str, Site, Slot]]) -> "Settings":
        """Read them off the sites of a handle; a schedule that is a function becomes the ratios that it gave."""
        depth = len({site.block_index for _, site, _ in rows})
        regularizer = rows[0][2].regularizer.settled(depth)
        ratios = {name: slot.drop_ratio for name, _, slot in rows}
        return cls(regularizer, all(slot.enabled for _, _, slot in rows), ratios)

    @classmethod
    def from_plain(cls, state: Mapping[str, Any]) -> "Settings":
        """Read plain data.

        Raises:
            ArgumentError: not what ``plain`` returns.
        """
        if not isinstance(state, Mapping):
            raise ArgumentError(f"settings are what handle.state_dict() returned, got a {type(state).__name__}")
        if set(state) != set(cls._fields):
            raise ArgumentError(
                f"settings of a handle have {', '.join(cls._fields)}, got {', '.join(map(str, state)) or 'nothing'}: "
                "pass what handle.state_dict() returned"
            )
        ratios = state["drop_ratios"]
        if not isinstance(ratios, Mapping) or not ratios:
            raise ArgumentError(f"drop_ratios must give the ratio of each site by its name, got {ratios!r}")
        checked = {str(name): check_drop_ratio(ratio) for name, ratio in ratios.items()}
        return cls(_regularizer(state["regularizer"]), check_flag("enabled", state["enabled"]), checked)

    def plain(self) -> dict[str, Any]:
        """Return them as plain data."""
        options = {field.name: _plain(getattr(self.regularizer, field.name)) for field in fields(self.regularizer)}
        return {
            "regularizer": {"name": type(self.regularizer).__name__, **options},
            "enabled": self.enabled,
            "drop_ratios": dict(self.drop_ratios),
        }

    def check_fits(self, rows: Sequence[tuple[str, Site, Slot]]) -> None:
        """Raise an ArgumentError if these are settings of another regularizer, or of other sites."""
        applied = rows[0][2].regularizer
        if applied.fixed() != self.regularizer.fixed():
            raise ArgumentError(
                f"these are settings of {self.regularizer}, this handle is of {applied}: "
                "remove it and give the settings to dropkey.apply"
            )
        different = {name for name, _, _ in rows} ^ set(self.drop_ratios)
        if different:
            raise ArgumentError(
                f"the saved sites do not match this model, see {', '.join(sorted(different)[:3])}: each must be in both"
            )


def _plain(value: Any) -> Any:
    if isinstance(value, Pattern):
        return {"name": value.name, **{option: getattr(value, option) for option in value.options()}}
    return list(value) if isinstance(value, tuple) else value


def _regularizer(state: Any) -> Regularizer:
    if isinstance(state, Mapping) and "pattern" in state:
        state = {**state, "pattern": _named("pattern", state["pattern"], PATTERNS)}
    built: Regularizer = _named("regularizer", state, REGULARIZERS)
    return built


def _named(what: str, state: Any, known: Mapping[str, Any]) -> Any:
    """Build the class that ``state`` names, with the rest of it as arguments."""
    if not isinstance(state, Mapping) or "name" not in state:
        raise ArgumentError(f"the {what} in the settings must have a name, got {state!r}")
    options = dict(state)
    name = options.pop("name")
    if name not in known:
        hint = did_you_mean(str(name), known)
        raise ArgumentError(f"unknown {what} {name!r} in the settings{hint}; known: {', '.join(known)}")
    wrong = set(options) - {field.name for field in fields(known[name])}
    if wrong:
        raise ArgumentError(f"{name} in the settings has no option {', '.join(sorted(wrong))}")
    return known[name](**options)
