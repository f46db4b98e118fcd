"""Writing the page."""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from dropkey.diagnostics.page.content import model_data, stored
from dropkey.diagnostics.page.pictures import data_uri
from dropkey.diagnostics.report import Report
from dropkey.errors import ArgumentError, RunError

__all__ = ["MAX_BYTES", "save"]

MAX_BYTES = 9_000_000  # of a model's maps, beyond which they are stored in fewer bits, and then pooled
_ASSETS = Path(__file__).parent / "assets"
# In the order in which each uses those before.
_SCRIPTS = ("maps", "colors", "state", "stage", "overview", "charts", "controls", "export", "main")


def save(
    path: str | Path,
    reports: Mapping[str, Report],
    *,
    title: str | None = None,
    names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    are_epochs: bool = False,
    max_bytes: int = MAX_BYTES,
) -> Path:
    """Write reports on the same images as one HTML file that needs no network.

    Args:
        path: of the file.
        reports: one or more, by the labels that the page shows; the first two stand side by side.
        title: of the page; by default made of the labels.
        names: of the images, by default numbers.
        mean: what was subtracted from each channel of the images, in [0, 1]; None stretches them.
        std: what was divided by.
        are_epochs: the reports are one model over its training, in order: a slider chooses one.
        max_bytes: of the maps of one model; two models or more share twice as many. Beyond, maps are stored in fewer
            bits, and then pooled; the page says so.

    Returns:
        The path.

    Raises:
        ArgumentError: no report, or reports on other images.
        RunError: the file cannot be written.
    """
    _check(reports, names)
    first = next(iter(reports.values()))
    title = title or f"Attention of {' and '.join(reports if len(reports) <= 2 else {first.model: None})}"
    kept, texts = stored(reports, max_bytes * min(2, len(reports)))
    data = {
        "images": [
            {"source": data_uri(image, mean, std), "width": image.shape[2], "height": image.shape[1], "name": name}
            for image, name in zip(first.images, names or _numbered(len(first.images)), strict=True)
        ],
        "models": [model_data(label, report) for label, report in zip(reports, kept.reports, strict=True)],
        "areEpochs": are_epochs,
        "levels": kept.coding.levels,
        "octaves": kept.coding.octaves,
        "notes": list(kept.notes()),
    }
    text = _page(title, data, texts)
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from None
    return Path(path)


def _check(reports: Mapping[str, Report], names: Sequence[str] | None) -> None:
    if not reports:
        raise ArgumentError("a page needs one report at least")
    shapes = {label: tuple(report.images.shape) for label, report in reports.items()}
    count = next(iter(shapes.values()))[0]
    other = next((label for label, shape in shapes.items() if shape[0] != count), None)
    if other is not None:
        raise ArgumentError(f"reports of a page are on the same images: {other!r} has {shapes[other][0]}, not {count}")
    if names is not None and len(names) != count:
        raise ArgumentError(f"names has {len(names)} of {count} images")


def _numbered(count: int) -> list[str]:
    return [f"image {number}" for number in range(1, count + 1)]


def _page(title: str, data: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    maps = "\n".join(f'<script type="text/plain" id="{name}">{text}</script>' for name, text in texts.items())
    scripts = "\n".join((_ASSETS / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS)
    return Template((_ASSETS / "page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        style=(_ASSETS / "page.css").read_text(encoding="utf-8"),
        data=json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),  # no name can end the script
        maps=maps,
        script=scripts,
    )
