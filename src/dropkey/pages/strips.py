"""Values as dots with their mean and interval, a row each, as inline SVG."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dropkey.pages.axis import Axis
from dropkey.pages.palette import color
from dropkey.pages.short_names import fitted, width_of
from dropkey.pages.svg import Drawing, number

__all__ = ["Strip", "strip_chart"]

_WIDTH, _LEFT, _RIGHT = 420, 12, 408
_TOP, _ROW, _BOTTOM = 4, 44, 40


@dataclass(frozen=True)
class Strip:
    """A row.

    Args:
        label: what it is.
        color: number of a look of the page, of which it has the color.
        dots: the values; a row without any is a name alone.
        mean: of the values.
        low: lower end of an interval around the mean, NaN where there is none.
        high: its upper end.
        words: the numbers as they are read.
    """

    label: str
    color: int
    dots: Sequence[float]
    mean: float
    low: float
    high: float
    words: str


def strip_chart(strips: Sequence[Strip], x_label: str, *, title: str, zero: bool = False) -> str:
    """Return an SVG element, 420 wide.

    Args:
        strips: the rows.
        x_label: what the values are.
        title: for readers that do not see the picture; the words of the rows are added.
        zero: draw a line at 0.
    """
    values = [value for strip in strips for value in (*strip.dots, strip.mean, strip.low, strip.high)]
    axis = Axis.around([*values, 0.0] if zero else values, steps=5)
    bottom = _TOP + _ROW * len(strips) + 4
    said = "; ".join(f"{strip.label}: {strip.words}" for strip in strips if strip.words)
    drawing = Drawing(_WIDTH, bottom + _BOTTOM, f"{title}. {said}")

    def x(value: float) -> float:
        return _LEFT + 14 + axis.share(value) * (_RIGHT - _LEFT - 28)

    for tick, words in zip(axis.ticks, axis.words(), strict=True):
        drawing.line("zero" if zero and tick == 0 else "grid", (x(tick), _TOP), (x(tick), bottom))
        drawing.write(words, (x(tick), bottom + 15), "middle", "tick")
    drawing.write(x_label, ((_LEFT + _RIGHT) / 2, bottom + 33), "middle", "axis")
    for place, strip in enumerate(strips):
        _draw(drawing, strip, _TOP + _ROW * place, x)
    return drawing.svg()


def _draw(drawing: Drawing, strip: Strip, top: float, x: Callable[[float], float]) -> None:
    """Draw a row: its words, and below them its dots, its mean as a bar, its interval as a line with ends."""
    drawing.write(fitted(strip.label, _RIGHT - _LEFT - 8 - width_of(strip.words)), (_LEFT, top + 13))
    drawing.write(strip.words, (_RIGHT, top + 13), "end")
    if not strip.dots:
        return
    middle = top + 28
    drawing.add(f'<g class="{color(strip.color)}">')
    for count, value in enumerate(strip.dots):
        height = middle + (count % 3 - 1) * 4  # a seed has its height in every row
        drawing.add(f'<circle class="dot" cx="{number(x(value))}" cy="{number(height)}" r="3.5"/>')
    if not math.isnan(strip.low):
        drawing.line("span", (x(strip.low), middle), (x(strip.high), middle))
        for end in (strip.low, strip.high):
            drawing.line("span", (x(end), middle - 4), (x(end), middle + 4))
    drawing.line("span", (x(strip.mean), middle - 9), (x(strip.mean), middle + 9))
    drawing.add("</g>")
