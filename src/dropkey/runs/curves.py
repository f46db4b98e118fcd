"""A picture of a run: loss and headline measure over epochs."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dropkey.runs.measure import Measure
from dropkey.runs.run_folder import write_atomically

__all__ = ["draw_curves"]

_BLUE, _ORANGE, _GRAY = "#2563a8", "#d9730d", "#777777"


def draw_curves(
    rows: Sequence[Mapping[str, Any]], path: Path, title: str, headline: Measure, best: Mapping[str, Any]
) -> None:
    """Write loss and headline measure over epochs to a PNG file.

    Args:
        rows: rows of metrics.csv.
        path: the file.
        title: one line above the picture.
        headline: what the panel on the right shows.
        best: the row that is marked there.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    left, right = figure.subplots(1, 2)
    _draw(left, rows, "loss", "loss")
    _draw(right, rows, headline.name, f"{headline.words} ({headline.unit})" if headline.unit else headline.words)
    left.legend(frameon=False, fontsize=8)
    _mark(right, best["epoch"] + 1, best[headline.val], headline)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    write_atomically(path, buffer.getvalue())


def _mark(axes: Axes, epoch: int, value: float, headline: Measure) -> None:
    axes.plot(epoch, value, "o", color=_ORANGE, markersize=5)
    axes.annotate(
        f"best {headline.text(value)}",
        (epoch, value),
        xytext=(0, -14 if headline.better == "higher" else 8),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color=_ORANGE,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},  # a steep curve goes behind it
    )


def _draw(axes: Axes, rows: Sequence[Mapping[str, Any]], name: str, label: str) -> None:
    epochs = [row["epoch"] + 1 for row in rows]
    marker = "o" if len(rows) == 1 else ""
    for column, what, color, style in (
        (f"train_{name}", "training (running, augmented)", _GRAY, "--"),
        (f"clean_train_{name}", "training (clean)", _BLUE, "-"),
        (f"val_{name}", "validation", _ORANGE, "-"),
    ):
        if column in rows[0]:
            values = [row[column] for row in rows]
            axes.plot(epochs, values, style, color=color, label=what, marker=marker, linewidth=1.6)
    axes.set_xlabel("epoch")
    axes.set_title(label, fontsize=10, loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
