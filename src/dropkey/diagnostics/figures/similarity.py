"""How alike blocks are, as heat maps."""

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from dropkey.diagnostics.report import Report

__all__ = ["similarity"]


def similarity(report: "Report") -> Figure:
    """Draw the similarity of the maps of every pair of sites, and of the features of every pair of blocks.

    Args:
        report: of ``dropkey.diagnose``.
    """
    pairs = [("cross-layer similarity of maps", "site", report.similarity)]
    if report.blocks:
        pairs.append(("similarity of block outputs", "block", report.feature_similarity))
    figure = Figure(figsize=(3.6 * len(pairs), 3.4), layout="constrained")
    figure.suptitle(report.model, fontsize=10)
    for ax, (title, axis, values) in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
        image = ax.imshow(values.numpy(), cmap="magma", vmin=min(0.0, float(values.nan_to_num().min())), vmax=1)
        ax.set_title(title, fontsize=9)
        ax.set_xlabel(axis, fontsize=8)
        ax.set_ylabel(axis, fontsize=8)
        for each in (ax.xaxis, ax.yaxis):
            each.set_major_locator(MaxNLocator(integer=True))
        ax.tick_params(labelsize=7)
        figure.colorbar(image, ax=ax, shrink=0.8)
    return figure
