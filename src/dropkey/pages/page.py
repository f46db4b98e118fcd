"""The frame of a page: style, title and figures."""

import html
from collections.abc import Sequence
from typing import Any

__all__ = ["figure", "html_page", "text"]

_STYLE = """
:root { --ink: #1c2430; --soft: #5c6675; --paper: #fbfbfa; --card: #ffffff; --rule: #e2e5ea;
  --c0: #6b7280; --c1: #c2570c; --c2: #1d63b8; --c3: #15803d; --c4: #9333a8;
  --c5: #b4232f; --c6: #0e7490; --c7: #8a6a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #9aa5b4; --paper: #14181e; --card: #1c2129;
  --rule: #313945; --c0: #a3acb9; --c1: #f5934b; --c2: #6fb0f7; --c3: #5fcf85; --c4: #d68ae6;
  --c5: #f58289; --c6: #58c9dd; --c7: #dfbc4a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1140px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 36px 0 10px; }
h3 { font-size: 15px; margin: 0 0 4px; }
p { max-width: 75ch; } .soft, figcaption { color: var(--soft); font-size: 13px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; background: var(--card); }
th, td { padding: 8px 10px; border-bottom: 1px solid var(--rule); text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th { font-weight: 600; color: var(--soft); font-size: 13px; } th:first-child, td:first-child { text-align: left; }
.key { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 7px;
  background: currentColor; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); gap: 16px; }
figure { margin: 0; padding: 14px 16px; background: var(--card); border: 1px solid var(--rule); border-radius: 8px; }
svg { display: block; width: 100%; height: auto; } .grid { stroke: var(--rule); }
.tick, .axis { fill: var(--soft); font-size: 11px; font-family: system-ui, sans-serif; }
.line polyline { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
.line circle { fill: currentColor; } .band { fill: currentColor; opacity: .14; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(240px, 100%), 1fr)); gap: 16px; }
.picture svg { border-radius: 4px; } .picture figcaption { margin-top: 6px; }
pre { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 12px 16px; overflow-x: auto;
  font-size: 13px; } details { margin: 8px 0; } summary { cursor: pointer; }
""" + "\n".join(f".c{number} {{ color: var(--c{number}); }}" for number in range(8))


def html_page(title: str, body: Sequence[str]) -> str:
    """Return a page.

    Args:
        title: plain text.
        body: HTML, in which every name that comes from a user or a file is escaped by ``text``.
    """
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{text(title)}</title>'
    scheme = '<meta name="color-scheme" content="light dark">'
    page = f"{head}{scheme}<style>{_STYLE}</style></head><body><main>{''.join(body)}</main></body></html>"
    return f'<!doctype html><html lang="en"><head>{page}\n'


def figure(title: str, svg: str) -> str:
    """Return a drawing with its title above it."""
    return f"<figure><h3>{text(title)}</h3>{svg}</figure>"


def text(value: Any) -> str:
    """Return a value as text that HTML shows as it is."""
    return html.escape(str(value))
