"""Options as the fields of a frozen dataclass: the default, the help, the type, and what makes an option act.

The fields are the one table of this: the parser, the help, the refusals and the tests read them.
"""

import dataclasses
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from dropkey.errors import ArgumentError, did_you_mean
from dropkey.runs.numbers import in_words

__all__ = [
    "GROUPS",
    "Options",
    "When",
    "acting",
    "check_values",
    "defaults_of",
    "flag",
    "idle_because",
    "known_options",
    "one_of",
    "option",
    "options_of",
    "other_than",
    "refuse_idle",
    "type_of",
]

GROUPS = ("comparison", "search", "several runs", "data", "model", "regularizer", "optimization", "run")

Default = TypeVar("Default")


@dataclasses.dataclass(frozen=True)
class When:
    """What another option must be for an option to act.

    Args:
        option: name of the other option's field.
        words: what it must be, as in "acts with --pattern block or cross".
        test: whether a value of it will do.
        is_flag: False for what is not an option, such as the kind of thing that a command was given.
    """

    option: str
    words: str
    test: Callable[[Any], bool]
    is_flag: bool = True

    def __str__(self) -> str:
        return f"{flag(self.option)} {self.words}" if self.is_flag else self.words


def one_of(option: str, *values: str) -> When:
    """Act where another option has one of these values."""
    return When(option, _alternatives(values), lambda value: value in values)


def _alternatives(values: Sequence[str]) -> str:
    *first, last = values
    return f"{', '.join(first)} or {last}" if first else last


def other_than(option: str, value: Any) -> When:
    """Act where another option has any value but this one."""
    return When(option, f"other than {value}", lambda given: bool(given != value))


def option(
    default: Any,
    help: str,
    *,
    group: str = "run",
    kind: Any = None,
    when: tuple[When, ...] = (),
    takes: str | None = None,
    shown: str | None = None,
    several: Callable[[list[str]], Any] | None = None,
) -> Any:
    """Declare an option.

    Args:
        default: its value where neither the user nor a recipe gives one.
        help: the line that ``--help`` shows.
        group: heading in the help, one of ``GROUPS``.
        kind: type for the parser where the annotation says too little: a range.
        when: all that must hold for it to act; without it, it always acts.
        takes: what stands for its value in the help: NAME, FILE; by its type if None.
        shown: the default in words, where the value itself says nothing.
        several: for an option of several words: makes its value of them.
    """
    metadata = {
        "help": help,
        "group": group,
        "kind": kind,
        "when": when,
        "takes": takes,
        "shown": shown,
        "several": several,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Base of every set of options: plain data, without None, checked where it is made.

    Raises:
        ArgumentError: a value that its option does not take; the message names the option.
    """

    def __post_init__(self) -> None:
        for field in options_of(type(self)):
            check_value(type(self), field, getattr(self, field.name))


def options_of(config_class: type) -> list[dataclasses.Field[Any]]:
    """Return the fields of a config that are options, in the order of their groups."""
    fields = [field for field in dataclasses.fields(config_class) if "help" in field.metadata]
    return sorted(fields, key=lambda field: GROUPS.index(field.metadata["group"]))


def known_options(config_class: type, names: Collection[str], where: str) -> None:
    """Raise an ArgumentError for the first unknown name, with near matches."""
    known = [field.name for field in options_of(config_class)]
    for name in names:
        if name not in known:
            raise ArgumentError(f"{where} has an unknown option {name!r}{did_you_mean(str(name), known)}")


def type_of(config_class: type, field: dataclasses.Field[Any]) -> Any:
    """Return the type that the parser reads an option as."""
    return field.metadata["kind"] or typing.get_type_hints(config_class)[field.name]


def check_values(config_class: type, values: Mapping[str, Any]) -> None:
    """Raise an ArgumentError for the first of these options that cannot have its value."""
    for field in options_of(config_class):
        if field.name in values:
            check_value(config_class, field, values[field.name])


def check_value(config_class: type, field: dataclasses.Field[Any], value: Any) -> None:
    """Raise an ArgumentError if an option cannot have this value."""
    kind = type_of(config_class, field)
    if not _fits(kind, value):
        raise ArgumentError(f"{flag(field.name)} must be {in_words(kind)}, got {value!r}")


def _fits(kind: Any, value: Any) -> bool:
    if typing.get_origin(kind) is typing.Literal:
        return value in typing.get_args(kind)
    if typing.get_origin(kind) is not None or not isinstance(kind, type):
        return True
    if kind in (str, bool) or isinstance(value, bool):
        return isinstance(value, kind)
    try:
        return bool(kind(value) == value)
    except (TypeError, ValueError, OverflowError):
        return False


def flag(name: str) -> str:
    """Return how the command line spells an option: ``--drop-ratio`` for ``drop_ratio``."""
    return "--" + name.replace("_", "-")


def idle_because(config: Any, name: str) -> When | None:
    """Return what keeps an option from acting, or None if it acts."""
    by_name = {field.name: field for field in options_of(type(config))}
    for when in by_name[name].metadata["when"]:
        if not when.test(getattr(config, when.option)):
            return typing.cast(When, when)
        if when.option in by_name and (deeper := idle_because(config, when.option)) is not None:
            return deeper
    return None


def refuse_idle(config: Any, names: Collection[str]) -> None:
    """Raise an ArgumentError for the first of these options that would not act."""
    for name in names:
        when = idle_because(config, name)
        if when is not None:
            value = getattr(config, when.option) if when.is_flag else ""
            state = f", and {flag(when.option)} is {value}" if value != "" else ""
            raise ArgumentError(f"{flag(name)} acts only with {when}{state}: leave it out")


def acting(config: Any) -> dict[str, Any]:
    """Return the options of a config that act, as plain data."""
    names = [field.name for field in options_of(type(config))]
    return {name: getattr(config, name) for name in names if idle_because(config, name) is None}


def defaults_of(config_class: type) -> Mapping[str, Any]:
    """Return the default of each option, before any recipe."""
    return {field.name: field.default for field in options_of(config_class)}
