"""Where every head looks: one row for each block, one column for each head."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from dropkey.diagnostics.chosen import check_image, chosen_sites, look_of, query_name
from dropkey.errors import ArgumentError

if TYPE_CHECKING:
    from dropkey.diagnostics.report import Report

__all__ = ["maps"]

_CLIP = 0.99  # of a map's weights: one artifact patch must not swallow the scale


def maps(
    report: "Report",
    *,
    image: int = 0,
    query: int | tuple[int, int] | None = None,
    sites: Sequence[int | str] | None = None,
    heads: Sequence[int] | None = None,
) -> Figure:
    """Draw where every head of some blocks looks from one query.

    Each map has a color scale of its own, from 0 to its 99th percentile.

    Args:
        report: of ``dropkey.diagnose``.
        image: which of its images.
        query: a token, prefix tokens first; (row, col) of a patch; by default the class token, or the mean over all
            queries where there is none.
        sites: by place or name; by default six from first to last.
        heads: which heads; by default all, at most 12.

    Raises:
        ArgumentError: no such image, query, site or head.
    """
    chosen, image = chosen_sites(report, sites), check_image(report, image)
    most = max(site.num_heads for site in chosen)
    shown = list(range(min(most, 12))) if heads is None else list(heads)
    if not shown or not all(0 <= head < most for head in shown):
        raise ArgumentError(f"these sites have heads 0 to {most - 1}, got {shown}")
    figure = Figure(figsize=(1.1 * len(shown) + 1.2, 1.15 * len(chosen) + 0.6), layout="constrained")
    figure.suptitle(f"{report.model}: where heads look from {query_name(chosen[0], query)}", fontsize=10)
    axes = figure.subplots(len(chosen), len(shown), squeeze=False)
    for row, site in zip(axes, chosen, strict=True):
        looks = look_of(site, image, query)
        for ax, head in zip(row, shown, strict=True):
            ax.set_xticks([])
            ax.set_yticks([])
            if head >= len(looks):
                ax.set_axis_off()
                continue
            look = looks[head]
            ax.imshow(look.numpy(), cmap="viridis", vmin=0, vmax=max(float(look.quantile(_CLIP)), 1e-12))
        row[0].set_ylabel(site.name, rotation=0, ha="right", va="center", fontsize=7)
    for ax, head in zip(axes[0], shown, strict=True):
        ax.set_title(f"head {head}", fontsize=8)
    return figure
