"""A picture with boxes drawn over it, as inline SVG."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from dropkey.pages.page import text

__all__ = ["DrawnBox", "picture_with_boxes"]

_LONGEST = 640  # pixels of the embedded picture


@dataclass(frozen=True)
class DrawnBox:
    """A box on a picture.

    Args:
        xyxy: corners in pixels of the picture: left, top, right, bottom.
        color: number of a color of the page.
        label: written at its corner; nothing where it is empty.
        dashed: whether its line is broken.
    """

    xyxy: Sequence[float]
    color: int
    label: str = ""
    dashed: bool = False


def picture_with_boxes(image: Image.Image, boxes: Sequence[DrawnBox], caption: str) -> str:
    """Return a figure: the picture, its boxes in the colors of the page, and the caption below."""
    cols, rows = image.size
    unit = max(cols, rows) / 320  # a pixel as the page shows it
    parts = [f'<svg viewBox="0 0 {cols} {rows}" role="img" aria-label="{text(caption)}">']
    parts.append(f'<image href="{_data_uri(image)}" width="{cols}" height="{rows}"/>')
    parts += [_drawn(box, unit) for box in boxes]
    return f'<figure class="picture">{"".join(parts)}</svg><figcaption>{text(caption)}</figcaption></figure>'


def _drawn(box: DrawnBox, unit: float) -> str:
    left, top, right, bottom = box.xyxy
    dashes = f' stroke-dasharray="{4 * unit:.1f} {3 * unit:.1f}"' if box.dashed else ""
    size = f'x="{left:.1f}" y="{top:.1f}" width="{max(0.0, right - left):.1f}" height="{max(0.0, bottom - top):.1f}"'
    frame = f'<rect {size} fill="none" stroke="currentColor" stroke-width="{2 * unit:.2f}"{dashes}/>'
    if box.label:
        height = 11 * unit
        place = f'x="{left + unit:.1f}" y="{max(height, top - 2 * unit):.1f}" font-size="{height:.1f}"'
        outline = f'stroke="#000" stroke-width="{2.5 * unit:.2f}" paint-order="stroke"'
        frame += f'<text {place} fill="#fff" {outline} font-family="system-ui">{text(box.label)}</text>'
    return f'<g class="c{box.color}">{frame}</g>'


def _data_uri(image: Image.Image) -> str:
    """Return a picture to be embedded, made smaller where it is larger than a page shows."""
    copy = image.convert("RGB")
    copy.thumbnail((_LONGEST, _LONGEST))
    buffer = io.BytesIO()
    copy.save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
