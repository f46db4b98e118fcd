"""A picture of a run: loss and accuracy over epochs."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dropkey.tasks.run_folder import write_atomically

__all__ = ["draw_curves"]

_BLUE, _ORANGE, _GREY = "#2563a8", "#d9730d", "#777777"


def draw_curves(rows: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Write loss and accuracy over epochs to a PNG file.

    Args:
        rows: rows of metrics.csv.
        path: the file.
        title: one line above the picture.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    loss, accuracy = figure.subplots(1, 2)
    _draw(loss, rows, "loss")
    _draw(accuracy, rows, "accuracy")
    best = max(rows, key=lambda row: row["val_accuracy"])
    accuracy.plot(best["epoch"] + 1, best["val_accuracy"], "o", color=_ORANGE, markersize=5)
    accuracy.annotate(
        f"best {best['val_accuracy']:.3f}",
        (best["epoch"] + 1, best["val_accuracy"]),
        xytext=(0, -14),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color=_ORANGE,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    write_atomically(path, buffer.getvalue())


def _draw(axes: Axes, rows: Sequence[Mapping[str, Any]], what: str) -> None:
    epochs = [row["epoch"] + 1 for row in rows]
    marker = "o" if len(rows) == 1 else ""
    for name, label, color, style in (
        (f"train_{what}", "training (running, augmented)", _GREY, "--"),
        (f"clean_train_{what}", "training (clean)", _BLUE, "-"),
        (f"val_{what}", "validation", _ORANGE, "-"),
    ):
        axes.plot(epochs, [row[name] for row in rows], style, color=color, label=label, marker=marker, linewidth=1.6)
    axes.set_xlabel("epoch")
    axes.set_title(what, fontsize=10, loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if what == "loss":
        axes.legend(frameon=False, fontsize=8)
