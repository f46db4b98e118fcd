"""Line charts as inline SVG, colored by the page's CSS: light and dark without a script."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dropkey.pages.axis import Axis, whole_step
from dropkey.pages.palette import color, look
from dropkey.pages.short_names import short_names, width_of
from dropkey.pages.svg import Drawing, number

__all__ = ["Line", "line_chart"]

_TOP, _BOTTOM = 10, 38
_LINE = 13  # from one name to the next
_FEW = 30  # places at which points are drawn
_ENOUGH = 8  # places of which the first may leave the picture


@dataclass(frozen=True)
class Line:
    """A line with a band around it; ``low`` and ``high`` may equal ``middle``.

    Args:
        label: what it is; written at its end, where there are several.
        color: number of a look of the page: color and dashes.
        middle: heights, one a place on the horizontal axis.
        low: lower edge of the band.
        high: upper edge of the band.
        step: how many units of the horizontal axis lie between two places.
    """

    label: str
    color: int
    middle: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    step: int = 1


def line_chart(
    lines: Sequence[Line],
    x_label: str,
    first_x: int,
    *,
    title: str,
    from_zero: bool = False,
    around: Sequence[float] = (),
    size: tuple[int, int] = (420, 260),
) -> str:
    """Return an SVG element.

    Where the first places would press the others together, as at the start of training, the vertical axis fits the
    later ones, and the horizontal label says so.

    Args:
        lines: of equal or different lengths.
        x_label: what the horizontal axis counts.
        first_x: number of the first place, in steps of its line.
        title: for readers that do not see the picture.
        from_zero: let the vertical axis begin at 0.
        around: heights that the vertical axis must reach, whatever the lines are; 0 among them is drawn.
        size: width and height of the drawing; it grows where the names of the lines need more.
    """
    heights = [0.0] if from_zero else list(around)
    chart = _Chart(lines, first_x, size, title, heights)
    chart.draw_axes(x_label, zero=0.0 in around)
    chart.draw_lines()
    chart.write_names()
    return chart.drawing.svg()


class _Chart:
    """Where everything of a line chart goes."""

    def __init__(
        self, lines: Sequence[Line], first_x: int, size: tuple[int, int], title: str, heights: Sequence[float]
    ) -> None:
        self.lines, self.first_x = lines, first_x
        self.names = short_names([line.label for line in lines]) if len(lines) > 1 else []
        self.first = min(self.number_of(line, 0) for line in lines)
        self.last = max(self.number_of(line, len(line.middle) - 1) for line in lines)
        self.start = self.first if heights else self._later_if_pressed()
        self.axis = Axis.around([*self._edges(self.start), *heights])
        width, height = size[0], max(size[1], _TOP + _BOTTOM + _LINE * len(self.names))
        self.drawing = Drawing(width, height, title)
        self.left = 14 + max(map(width_of, self.axis.words()))
        self.right = width - (16 + max(map(width_of, self.names)) if self.names else 12)
        self.bottom = height - _BOTTOM

    def number_of(self, line: Line, place: int) -> int:
        """Return what the horizontal axis says at a place of a line."""
        return line.step * (place + self.first_x)

    def x(self, number_there: int) -> float:
        share = (number_there - self.first) / (self.last - self.first) if self.last > self.first else 0.5
        return self.left + share * (self.right - self.left)

    def y(self, value: float) -> float:
        return self.bottom - self.axis.share(value) * (self.bottom - _TOP)

    def draw_axes(self, x_label: str, zero: bool) -> None:
        for tick, words in zip(self.axis.ticks, self.axis.words(), strict=True):
            height = self.y(tick)
            name = "zero" if zero and tick == 0 else "grid"
            self.drawing.line(name, (self.left, height), (self.right, height))
            self.drawing.write(words, (self.left - 6, height + 4), "end", "tick")
        most = max(3, int(self.right - self.left) // 45)  # with two, a round step could pass over all
        step = whole_step(min(line.step for line in self.lines), (self.last - self.first + 1) / most)
        for there in range(math.ceil(self.first / step) * step, self.last + 1, step):
            self.drawing.write(str(there), (self.x(there), self.bottom + 16), "middle", "tick")
        cut = f" (vertical axis fits {self.start} and later)" if self.start > self.first else ""
        self.drawing.write(x_label + cut, ((self.left + self.right) / 2, self.bottom + 33), "middle", "axis")

    def draw_lines(self) -> None:
        """Draw bands, then lines; what lies outside of the axes is cut off."""
        place = f'x="{number(self.left)}" y="{_TOP - 3}" width="{number(self.right - self.left + 3)}"'
        box = f'viewBox="{number(self.left)} {_TOP - 3} {number(self.right - self.left + 3)} {self.bottom - _TOP + 6}"'
        self.drawing.add(f'<svg {place} height="{self.bottom - _TOP + 6}" {box}>')
        for line in self.lines:
            if any(low != high for low, high in zip(line.low, line.high, strict=True)):
                outline = [*self._points(line, line.high), *self._points(line, line.low)[::-1]]
                self.drawing.add(f'<polygon class="band {look(line.color)}" points="{" ".join(outline)}"/>')
        for line in self.lines:
            points = self._points(line, line.middle)
            self.drawing.add(f'<g class="{look(line.color)}"><polyline class="line" points="{" ".join(points)}"/>')
            if len(points) <= _FEW:
                places = [point.split(",") for point in points]
                self.drawing.add("".join(f'<circle class="point" cx="{x}" cy="{y}" r="2.4"/>' for x, y in places))
            self.drawing.add("</g>")
        self.drawing.add("</svg>")

    def write_names(self) -> None:
        """Write the name of each line at its end, where there are several, none over another."""
        named = [(line, name) for line, name in zip(self.lines, self.names, strict=False) if line.middle]
        ends = [min(max(self.y(line.middle[-1]), _TOP), self.bottom) for line, _ in named]
        for (line, name), end, height in zip(named, ends, _apart(ends, self.bottom), strict=True):
            start = (self.x(self.number_of(line, len(line.middle) - 1)) + 3, end)
            self.drawing.add(f'<g class="{color(line.color)}">')
            self.drawing.line("leader", start, (self.right + 11, height))
            self.drawing.add("</g>")
            self.drawing.write(name, (self.right + 14, height + 4))

    def _points(self, line: Line, heights: Sequence[float]) -> list[str]:
        return [
            f"{number(self.x(self.number_of(line, place)))},{number(self.y(value))}"
            for place, value in enumerate(heights)
        ]

    def _edges(self, start: int) -> list[float]:
        """Return the heights that the lines and their bands reach from a number of the horizontal axis on."""
        return [
            value
            for line in self.lines
            for edge in (line.low, line.high)
            for place, value in enumerate(edge)
            if self.number_of(line, place) >= start
        ]

    def _later_if_pressed(self) -> int:
        """Return from where on the vertical axis fits the lines: the middle, if all of them would be pressed flat."""
        if max(len(line.middle) for line in self.lines) < _ENOUGH:
            return self.first
        middle = (self.first + self.last + 1) // 2
        whole, later = (Axis.around(self._edges(start)).span for start in (self.first, middle))
        return middle if later < 0.6 * whole else self.first


def _apart(heights: Sequence[float], bottom: float) -> list[float]:
    """Return heights in the same order, moved as little as need be to keep a line's height between them."""
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    placed = [0.0] * len(heights)
    lowest = bottom - _LINE * (len(heights) - 1)
    previous = -math.inf
    for rank, place in enumerate(order):
        placed[place] = previous = max(previous + _LINE, min(heights[place], lowest + _LINE * rank))
    return placed
