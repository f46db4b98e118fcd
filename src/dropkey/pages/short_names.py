"""Names that fit beside a curve."""

from collections.abc import Sequence

__all__ = ["short_names", "shortened"]


def shortened(name: str, width: int) -> str:
    """Return a name of at most that many characters; what is left out of the middle becomes an ellipsis.

    Example:
        >>> shortened("dropkey:drop-ratio=0.3", 15)
        'dropkey…tio=0.3'
    """
    if len(name) <= width:
        return name
    head = width // 2
    return f"{name[:head]}…{name[len(name) - (width - head - 1) :]}"


def short_names(names: Sequence[str], width: int = 18) -> list[str]:
    """Return names that fit and differ: those that would look alike get their number, from 1, in front."""
    short = [shortened(name, width) for name in names]
    return [
        f"{number}: {shortened(names[number - 1], width - 4)}" if short.count(name) > 1 else name
        for number, name in enumerate(short, 1)
    ]
