"""Small line charts as inline SVG, colored by the page's CSS: light and dark without a script."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Line", "line_chart"]

_WIDTH, _HEIGHT = 460, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 38


@dataclass(frozen=True)
class Line:
    """A line with a band around it; ``low`` and ``high`` may equal ``middle``.

    Args:
        label: what it is; shown when the pointer rests on it.
        color: number of a color of the page.
        middle: heights, one a place on the horizontal axis.
        low: lower edge of the band.
        high: upper edge of the band.
    """

    label: str
    color: int
    middle: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def line_chart(lines: Sequence[Line], x_label: str, first_x: int, *, title: str, from_zero: bool = False) -> str:
    """Return an SVG element.

    Args:
        lines: of equal or different lengths.
        x_label: what the horizontal axis counts, from ``first_x`` in steps of 1.
        first_x: number of the first place.
        title: for readers that do not see the picture.
        from_zero: let the vertical axis begin at 0.
    """
    count = max(len(line.middle) for line in lines)
    heights = [value for line in lines for value in (*line.low, *line.high)]
    ticks = _ticks(min([0.0, *heights]) if from_zero else min(heights), max(heights))
    low, high = ticks[0], ticks[-1]

    def x(place: int) -> float:
        share = place / (count - 1) if count > 1 else 0.5
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _BOTTOM - _TOP)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(title)}">']
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{_number(tick)}</text>'
        )
    for step in _places(count):
        place = f'x="{x(step):.1f}" y="{_HEIGHT - _BOTTOM + 16}"'
        parts.append(f'<text class="tick" {place} text-anchor="middle">{step + first_x}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text class="axis" x="{middle:.0f}" y="{_HEIGHT - 5}" text-anchor="middle">{html.escape(x_label)}</text>'
    )
    for line in lines:
        upper = [f"{x(place):.1f},{y(value):.1f}" for place, value in enumerate(line.high)]
        lower = [f"{x(place):.1f},{y(value):.1f}" for place, value in enumerate(line.low)]
        if any(a != b for a, b in zip(line.low, line.high, strict=True)):
            parts.append(f'<polygon class="band c{line.color}" points="{" ".join(upper + lower[::-1])}"/>')
    for line in lines:
        points = [f"{x(place):.1f},{y(value):.1f}" for place, value in enumerate(line.middle)]
        parts.append(f'<g class="line c{line.color}"><title>{html.escape(line.label)}</title>')
        parts.append(f'<polyline points="{" ".join(points)}"/>')
        parts += [f'<circle cx="{p.split(",")[0]}" cy="{p.split(",")[1]}" r="2.4"/>' for p in points if count <= 30]
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers, evenly spaced, that enclose the range."""
    if not (math.isfinite(low) and math.isfinite(high)):
        low, high = 0.0, 1.0
    if high - low < 1e-9:
        low, high = low - 0.05, high + 0.05
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [count * step for count in range(first, last + 1)]


def _places(count: int) -> list[int]:
    """Return at most eight places of the horizontal axis to be numbered."""
    step = max(1, math.ceil(count / 8))
    return list(range(0, count, step))


def _number(value: float) -> str:
    return f"{round(value, 10):g}"
