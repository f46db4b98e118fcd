"""The numbers that options take: types for the parser, and the words for them."""

import math
import typing
from typing import Any

from jsonargparse.typing import ClosedUnitInterval, OpenUnitInterval, restricted_number_type

__all__ = [
    "ClosedUnitInterval",
    "Magnitude",
    "NonNegative",
    "NonNegativeInt",
    "OpenUnitInterval",
    "Positive",
    "PositiveInt",
    "PositiveShare",
    "Share",
    "in_words",
]

_MOST = 2**63 - 1  # more than that is no count of anything, and overflows where it is divided

PositiveInt: Any = restricted_number_type("PositiveInt64", int, [(">=", 1), ("<=", _MOST)])
NonNegativeInt: Any = restricted_number_type("NonNegativeInt64", int, [(">=", 0), ("<=", _MOST)])
Positive: Any = restricted_number_type("Positive", float, [(">", 0), ("<", math.inf)])
NonNegative: Any = restricted_number_type("NonNegative", float, [(">=", 0), ("<", math.inf)])
Magnitude: Any = restricted_number_type("Magnitude", float, [(">=", 0), ("<=", 10)])
Share: Any = restricted_number_type("Share", float, [(">=", 0), ("<", 1)])
PositiveShare: Any = restricted_number_type("PositiveShare", float, [(">", 0), ("<=", 1)])

_WORDS: dict[Any, str] = {
    PositiveInt: "a whole number, 1 or more and below 2^63",
    NonNegativeInt: "a whole number, 0 or more and below 2^63",
    Positive: "a number above 0",
    NonNegative: "a number, 0 or more",
    OpenUnitInterval: "a number in (0, 1)",
    Magnitude: "a number in [0, 10]",
    Share: "a number in [0, 1)",
    PositiveShare: "a number in (0, 1]",
    ClosedUnitInterval: "a number in [0, 1]",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
}


def in_words(kind: Any) -> str:
    """Return what an option of this type takes.

    Example:
        >>> in_words(PositiveInt)
        'a whole number, 1 or more and below 2^63'
    """
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    return _WORDS.get(kind, str(kind))
