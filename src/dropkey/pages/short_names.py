"""Names that fit where they are written."""

from collections.abc import Sequence

__all__ = ["fitted", "short_names", "width_of"]

# Widths in units of a drawing, of letters 12 high in DejaVu Sans: the usual fonts of other systems are narrower.
_WIDTHS = {
    **dict.fromkeys("iljI.,:;|'!", 4.1),
    **dict.fromkeys(" -()[]/frt", 5.0),
    **dict.fromkeys("=+<>~_", 10.1),
    **dict.fromkeys("mwMWOQG&@%…", 12.0),
}


def width_of(words: str) -> float:
    """Return about how wide words are, rather more than less."""
    return sum(_WIDTHS.get(letter, 7.7 if letter.islower() or letter.isdigit() else 9.3) for letter in words)


def fitted(name: str, room: float) -> str:
    """Return a name that is no wider than there is room; what is left out of its middle becomes an ellipsis.

    Example:
        >>> fitted("dropkey:drop-ratio=0.3", 110)
        'dropkey…tio=0.3'
    """
    length = len(name)
    while width_of(_shortened(name, length)) > room and length > 3:
        length -= 1
    return _shortened(name, length)


def short_names(names: Sequence[str], room: float = 120) -> list[str]:
    """Return names that fit and differ: those that would look alike get their number, from 1, in front."""
    short = [fitted(name, room) for name in names]
    return [
        f"{place}: {fitted(name, room - width_of(f'{place}: '))}" if short.count(found) > 1 else found
        for place, (name, found) in enumerate(zip(names, short, strict=True), 1)
    ]


def _shortened(name: str, length: int) -> str:
    if length >= len(name):
        return name
    head = length // 2
    return f"{name[:head]}…{name[len(name) - (length - head - 1) :]}"
