"""Which keys are dropped: Element, Column, Token, Block, Cross, and patterns of your own.

A pattern turns a seed and a drop ratio into a keep mask, True where a query may see a key. It is a pure function of the
seed and the position; ``bits`` holds the layout of the random bits, ``pattern`` what a pattern says of itself.
"""

from dropkey.patterns.column import Column
from dropkey.patterns.element import Element
from dropkey.patterns.geometry import Geometry
from dropkey.patterns.grid import GridPattern
from dropkey.patterns.pattern import Pattern
from dropkey.patterns.registry import PATTERNS, named_pattern, register, taking
from dropkey.patterns.token import Token
from dropkey.patterns.windows import Block, Cross, seed_probability

__all__ = [
    "PATTERNS",
    "Block",
    "Column",
    "Cross",
    "Element",
    "Geometry",
    "GridPattern",
    "Pattern",
    "Token",
    "named_pattern",
    "register",
    "seed_probability",
    "taking",
]

for _pattern in (Element, Column, Token, Block, Cross):
    register(_pattern)
