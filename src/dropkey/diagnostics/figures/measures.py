"""Measures over depth."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dropkey.diagnostics.site_measures import MEASURES
from dropkey.errors import ArgumentError

if TYPE_CHECKING:
    from dropkey.diagnostics.report import Report

__all__ = ["measures"]


def measures(report: "Report", *, names: Sequence[str] | None = None) -> Figure:
    """Draw measures over the sites in order: a point for each head (mean over the images), a line for their mean.

    Args:
        report: of ``dropkey.diagnose``.
        names: of measures; by default all that are defined somewhere.

    Raises:
        ArgumentError: no such measure.
    """
    means = {name: report.measure(name) for name in (MEASURES if names is None else names)}
    shown = [name for name, values in means.items() if names is not None or not values.isnan().all()]
    if not shown:
        raise ArgumentError("no measures to draw: names is empty")
    cols = min(4, len(shown))
    rows = -(-len(shown) // cols)
    figure = Figure(figsize=(3.0 * cols, 2.3 * rows + 0.4), layout="constrained")
    figure.suptitle(f"{report.model}: attention over depth", fontsize=10)
    axes = figure.subplots(rows, cols, squeeze=False).flatten()
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    for ax, name in zip(axes, shown, strict=False):
        for place, site in enumerate(report.sites):
            heads = site.measures[name].nanmean(0).tolist()
            ax.plot([place] * len(heads), heads, ".", color="tab:blue", alpha=0.35, markersize=4)
        ax.plot(range(len(report.sites)), means[name].tolist(), color="tab:blue", linewidth=1.4)
        ax.set_title(MEASURES[name], fontsize=8)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.tick_params(labelsize=7)
        ax.grid(alpha=0.25)
        ax.set_xlabel("site", fontsize=7)
    return figure
