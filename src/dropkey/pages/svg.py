"""Inline SVG, piece by piece, and the same as a file of its own."""

import html
import re
from collections.abc import Sequence

from dropkey.pages.palette import DASHES, LIGHT

__all__ = ["Drawing", "number", "side_by_side", "standalone", "text"]


class Drawing:
    """An SVG element of a width and a height, described in words for readers that do not see it."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self.width, self.height = width, height
        size = f'viewBox="0 0 {number(width)} {number(height)}"'
        self._parts = [f'<svg {size} role="img" aria-label="{text(title)}">']

    def add(self, element: str) -> None:
        """Add an element."""
        self._parts.append(element)

    def line(self, name: str, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Add a straight line of a class of the page."""
        (x1, y1), (x2, y2) = start, end
        ends = f'x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}"'
        self.add(f'<line class="{name}" {ends}/>')

    def write(self, words: str, place: tuple[float, float], anchor: str = "start", name: str = "label") -> None:
        """Add text, with its baseline at a place."""
        x, y = place
        where = f'x="{number(x)}" y="{number(y)}" text-anchor="{anchor}"'
        self.add(f'<text class="{name}" {where}>{text(words)}</text>')

    def svg(self) -> str:
        """Return the element."""
        return "".join([*self._parts, "</svg>"])


def number(value: float) -> str:
    """Return a coordinate in tenths."""
    return f"{value:.1f}".removesuffix(".0")


def text(words: str) -> str:
    """Return words as text that SVG shows as it is."""
    return html.escape(words)


def side_by_side(svgs: Sequence[str]) -> str:
    """Return several elements as one: from left to right."""
    sizes = [_size(svg) for svg in svgs]
    titles = [found[1] for svg in svgs if (found := re.search('aria-label="([^"]*)"', svg))]
    whole = Drawing(
        sum(width for width, _ in sizes), max(height for _, height in sizes), html.unescape("; ".join(titles))
    )
    left = 0.0
    for svg, (width, height) in zip(svgs, sizes, strict=True):
        inner = re.sub(' role="img" aria-label="[^"]*"', "", svg, count=1)
        place = f'x="{number(left)}" width="{number(width)}" height="{number(height)}"'
        whole.add(inner.replace("<svg", f"<svg {place}", 1))
        left += width
    return whole.svg()


def standalone(svg: str) -> str:
    """Return an element of a page as an SVG file: with the page's light colors, on white."""
    width, height = _size(svg)
    size = f'xmlns="http://www.w3.org/2000/svg" width="{number(width)}" height="{number(height)}"'
    head, _, rest = svg.partition(">")
    return f"{head.replace('<svg', f'<svg {size}', 1)}><style>{_STYLE}</style>{rest}\n"


def _size(svg: str) -> tuple[float, float]:
    found = re.match(r'<svg viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert found is not None
    return float(found[1]), float(found[2])


# Written out: programs that read SVG files know little of CSS variables.
_STYLE = "\n".join(
    [
        "svg { background: #fff; } text { font: 12px Helvetica, Arial, sans-serif; fill: #1c2430; }",
        ".tick, .axis { fill: #5c6675; } .grid { stroke: #e2e5ea; } .zero { stroke: #5c6675; }",
        ".line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }",
        ".point, .band { fill: currentColor; } .band { opacity: .14; }",
        ".span { stroke: currentColor; stroke-width: 2.5; } .leader { stroke: currentColor; stroke-width: 1; }",
        ".dot { fill: currentColor; fill-opacity: .35; stroke: currentColor; stroke-width: 1; }",
        *(f".c{place} {{ color: {color}; }}" for place, color in enumerate(LIGHT)),
        *(f".d{place} {{ stroke-dasharray: {dashes}; }}" for place, dashes in enumerate(DASHES)),
    ]
)
