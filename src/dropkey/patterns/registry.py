"""The patterns by name, those of users among them."""

from typing import Any, TypeVar

from dropkey.arguments import short
from dropkey.errors import ArgumentError, did_you_mean
from dropkey.patterns.grid import GridPattern
from dropkey.patterns.pattern import Pattern

__all__ = ["PATTERNS", "named_pattern", "register", "taking"]

PATTERNS: dict[str, type[Pattern]] = {}

_MAX_STREAM = 2**32 - 1
_AnyPattern = TypeVar("_AnyPattern", bound=type[Pattern])


def register(pattern: _AnyPattern) -> _AnyPattern:
    """Make a pattern of your own known by its name; usable as a class decorator.

    It then works by name wherever a pattern is named: in ``dropkey.apply``, in settings and on the command line.
    Registering a class anew, as a notebook does, replaces it.

    Args:
        pattern: a frozen dataclass derived from ``Pattern`` or ``GridPattern``.

    Returns:
        The class itself.

    Raises:
        ArgumentError: no class of patterns, one that lacks a method, a name or stream that is taken, or options
            without a default.
    """
    if not (isinstance(pattern, type) and issubclass(pattern, Pattern)):
        raise ArgumentError(f"register takes a subclass of dropkey.Pattern, got {pattern!r}")
    _check_methods(pattern)
    _check_name(pattern)
    _check_stream(pattern)
    _check_options(pattern)
    PATTERNS[pattern.name] = pattern
    return pattern


def named_pattern(pattern: str | Pattern) -> Pattern:
    """Return the pattern given by name (with its default options) or as an object; raise ArgumentError otherwise."""
    if isinstance(pattern, Pattern):
        return pattern
    if not isinstance(pattern, str) or pattern not in PATTERNS:
        hint = did_you_mean(str(pattern), PATTERNS)
        raise ArgumentError(f"unknown pattern {short(pattern)}{hint}; known: {', '.join(PATTERNS)}")
    return PATTERNS[pattern]()


def taking(option: str) -> list[str]:
    """Return the names of the patterns that take an option."""
    return [name for name, pattern in PATTERNS.items() if option in pattern.options()]


def _check_methods(pattern: type[Pattern]) -> None:
    draws: tuple[Any, ...] = (Pattern.keep,)
    if pattern.keep is GridPattern.keep:
        assert issubclass(pattern, GridPattern)
        draws = (GridPattern.keep_patches,)
    for method in (*draws, Pattern.num_draws):
        if getattr(pattern, method.__name__) is method:
            raise ArgumentError(f"pattern {pattern.__name__} must define {method.__name__}, see dropkey.Pattern")


def _check_name(pattern: type[Pattern]) -> None:
    name = pattern.__dict__.get("name")
    if not isinstance(name, str) or not name:
        raise ArgumentError(f"pattern {pattern.__name__} must have a name of its own: a class attribute name")
    if name in PATTERNS and not _is_same(PATTERNS[name], pattern):
        raise ArgumentError(f"the name {name!r} is taken by {PATTERNS[name].__name__}: give {pattern.__name__} another")


def _check_stream(pattern: type[Pattern]) -> None:
    stream = getattr(pattern, "stream", None)
    others = {other.stream: other for other in PATTERNS.values() if not _is_same(other, pattern)}
    owner = others.get(stream) if isinstance(stream, int) else None
    if not isinstance(stream, int) or not 0 <= stream <= _MAX_STREAM or owner is not None:
        taken = "" if owner is None else f" (taken by {owner.__name__})"
        raise ArgumentError(
            f"pattern {pattern.__name__} must have a stream number of its own, up to {_MAX_STREAM}, got "
            f"{stream!r}{taken}; free: {max((*others, -1)) + 1}"
        )


def _check_options(pattern: type[Pattern]) -> None:
    try:
        pattern()
    except TypeError:
        raise ArgumentError(
            f"pattern {pattern.__name__} must have a default for each option: by name it is built without any"
        ) from None


def _is_same(one: type[Pattern], other: type[Pattern]) -> bool:
    """Whether two classes are the same, or one defined anew in a notebook."""
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)
