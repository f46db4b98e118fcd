"""Pairs, and where a query looks, drawn over an image as inline SVG."""

import base64
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dropkey.pages.page import text

__all__ = ["DrawnPair", "drawn_boxes", "drawn_heat", "drawn_pairs", "svg_over"]

_SUBJECT, _OBJECT = 2, 1  # colors of the page


class DrawnPair(NamedTuple):
    """A pair on a picture.

    Args:
        subject: left, top, right, bottom in pixels.
        other: likewise; None without an object.
        is_true: whether it is the truth, whose boxes have broken lines.
        label: at the object.
    """

    subject: Sequence[float]
    other: Sequence[float] | None
    is_true: bool = False
    label: str = ""


def svg_over(image: Image.Image, parts: Sequence[str], label: str) -> str:
    """Return an image with drawings over it."""
    cols, rows = image.size
    head = f'<svg viewBox="0 0 {cols} {rows}" role="img" aria-label="{text(label)}">'
    return f'{head}<image href="{_data_uri(image)}" width="{cols}" height="{rows}"/>{"".join(parts)}</svg>'


def drawn_pairs(pairs: Sequence[DrawnPair], unit: float) -> list[str]:
    """Return each pair as two boxes and the line between their middles; ``unit`` is a pixel as the page shows it."""
    return [part for pair in pairs for part in _drawn(pair, unit)]


def _drawn(pair: DrawnPair, unit: float) -> list[str]:
    boxes = [(pair.subject, _SUBJECT), *([] if pair.other is None else [(pair.other, _OBJECT)])]
    parts = [_box(box, color, unit, dashed=pair.is_true) for box, color in boxes]
    if pair.other is None:
        return parts
    (x, y), (to_x, to_y) = _middle(pair.subject), _middle(pair.other)
    dashes = f' stroke-dasharray="{3 * unit:.2f}"' if pair.is_true else ""
    place = f'x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}"'
    parts.append(f'<line class="c5" {place} stroke="currentColor" stroke-width="{2 * unit:.2f}"{dashes}/>')
    if pair.label:
        style = f'font-size="{15 * unit:.1f}" fill="#fff" stroke="#000" stroke-width="{2.5 * unit:.2f}"'
        style += ' paint-order="stroke" font-family="system-ui"'
        parts.append(f'<text x="{to_x:.1f}" y="{to_y:.1f}" {style}>{text(pair.label)}</text>')
    return parts


def drawn_boxes(boxes: Any, weights: Any, unit: float) -> list[str]:
    """Return boxes that are the more opaque, the more weight they have."""
    shares = np.asarray(weights)
    shares = shares / max(float(shares.max(initial=0)), 1e-12)
    return [_box(box, 1, unit, opacity=float(share)) for box, share in zip(boxes, shares, strict=True) if share > 0.05]


def drawn_heat(weights: Any, size: tuple[int, int]) -> str:
    """Return weights (rows, cols) as a layer over an image of ``size`` (cols, rows): the brighter, the more."""
    share = np.asarray(weights, dtype=np.float64)
    share = share / max(share.max(), 1e-12)
    colors = np.stack([np.full_like(share, 255), 160 * share, 30 * share, 215 * share], -1).round().astype(np.uint8)
    heat = Image.fromarray(colors, "RGBA").resize(size, Image.Resampling.BICUBIC)
    return f'<image href="{_data_uri(heat, "PNG")}" width="{size[0]}" height="{size[1]}"/>'


def _box(box: Sequence[float], color: int, unit: float, *, dashed: bool = False, opacity: float = 1.0) -> str:
    left, top, right, bottom = box
    place = f'x="{left:.1f}" y="{top:.1f}" width="{max(0.0, right - left):.1f}" height="{max(0.0, bottom - top):.1f}"'
    dashes = f' stroke-dasharray="{4 * unit:.2f} {3 * unit:.2f}"' if dashed else ""
    stroke = f'stroke="currentColor" stroke-width="{2 * unit:.2f}" stroke-opacity="{opacity:.2f}"{dashes}'
    return f'<rect class="c{color}" {place} fill="none" {stroke}/>'


def _middle(box: Sequence[float]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _data_uri(image: Image.Image, kind: str = "JPEG") -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()
