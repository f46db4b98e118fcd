"""The frame of a page: style, title, figures and tables."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dropkey.pages.palette import DARK, DASHES, LIGHT, ON_PICTURES, look, palette_css

__all__ = ["download", "figure", "html_page", "swatch", "table", "text"]


def html_page(title: str, body: Sequence[str]) -> str:
    """Return a page: light or dark as its reader has it, fit for print and for a phone, loading nothing.

    Args:
        title: plain text.
        body: HTML, in which every name that comes from a user or a file is escaped by ``text``.
    """
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{text(title)}</title>'
    scheme = '<meta name="color-scheme" content="light dark">'
    page = f"{head}{scheme}<style>{_style()}</style></head>\n<body><main>{''.join(body)}</main></body></html>"
    return f'<!doctype html><html lang="en"><head>{page}\n'


def figure(title: str, svg: str, caption: str = "") -> str:
    """Return a drawing with its title above it and plain text below it."""
    below = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    return f"<figure><h3>{text(title)}</h3>{svg}{below}</figure>"


def table(rows: Sequence[Sequence[Any]], caption: str = "") -> str:
    """Return a table that scrolls by itself where it is wider than the page.

    Args:
        rows: cells as plain text; the first row is the header, and the first cell of a row its name.
        caption: what it shows, for readers that do not see it.
    """
    head, *others = rows
    names = "".join(f'<th scope="col">{text(cell)}</th>' for cell in head)
    lines = [f"<thead><tr>{names}</tr></thead><tbody>"]
    for name, *cells in others:
        tail = "".join(f"<td>{text(cell)}</td>" for cell in cells)
        lines.append(f'<tr><th scope="row">{text(name)}</th>{tail}</tr>')
    label = f' role="region" aria-label="{text(caption)}"' if caption else ""
    return f'<div class="scroll" tabindex="0"{label}><table>{"".join(lines)}</tbody></table></div>'


def swatch(number: int) -> str:
    """Return a piece of the line of that number, for a key."""
    line = '<line class="line" x1="1" x2="27" y1="5" y2="5"/>'
    return f'<svg class="swatch {look(number)}" viewBox="0 0 28 10" aria-hidden="true">{line}</svg>'


def download(file_name: str, content: str, media_type: str) -> str:
    """Return a link that saves a file which the page itself carries."""
    coded = base64.b64encode(content.encode()).decode()
    return f'<a download="{text(file_name)}" href="data:{media_type};base64,{coded}">{text(file_name)}</a>'


def text(value: Any) -> str:
    """Return a value as text that HTML shows as it is."""
    return html.escape(str(value))


def _style() -> str:
    dark = palette_css(colors=DARK)
    rules = [
        Path(__file__).with_name("style.css").read_text(encoding="utf-8"),
        palette_css(),
        f"@media screen and (prefers-color-scheme: dark) {{ {dark} }}",
        palette_css(".picture, .on-pictures", ON_PICTURES),
        *(f".c{number} {{ color: var(--c{number}); }}" for number in range(len(LIGHT))),
        *(f".d{number} {{ stroke-dasharray: {dashes}; }}" for number, dashes in enumerate(DASHES)),
    ]
    return "\n".join(rules)
