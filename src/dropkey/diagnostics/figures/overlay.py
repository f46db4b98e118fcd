"""Attention laid over the image."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import interpolate

from dropkey.diagnostics.chosen import check_image, chosen_sites, look_of, picture, query_name, rolled_look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dropkey.diagnostics.report import Report

__all__ = ["overlay"]


def overlay(
    report: "Report",
    *,
    image: int = 0,
    query: int | tuple[int, int] | None = None,
    sites: Sequence[int | str] | None = None,
) -> Figure:
    """Draw an image, and over it where blocks look from one query (the mean over their heads), and the rollout.

    Args:
        report: of ``dropkey.diagnose``.
        image: which of its images.
        query: a token, prefix tokens first; (row, col) of a patch; by default the class token, or the mean over all
            queries where there is none.
        sites: by place or name; by default six from first to last.

    Raises:
        ArgumentError: no such image, query or site.
    """
    chosen, image = chosen_sites(report, sites), check_image(report, image)
    shown = picture(report, image).permute(1, 2, 0).numpy()
    looks = [(site.name, look_of(site, image, query).mean(0)) for site in chosen]
    rolled = rolled_look(report, image, query)
    if rolled is not None:
        looks.append(("rollout", rolled))
    figure = Figure(figsize=(1.9 * (len(looks) + 1), 2.5), layout="constrained")
    figure.suptitle(f"{report.model}: attention from {query_name(chosen[0], query)}", fontsize=10)
    axes = figure.subplots(1, len(looks) + 1, squeeze=False)[0]
    axes[0].imshow(shown)
    axes[0].set_title("image", fontsize=8)
    for ax, (name, look) in zip(axes[1:], looks, strict=True):
        _lay_over(ax, shown, look)
        ax.set_title(name, fontsize=8)
    for ax in axes:
        ax.set_axis_off()
    return figure


def _lay_over(ax: "Axes", shown: "np.ndarray", look: Tensor) -> None:
    height, width = shown.shape[:2]
    fine = interpolate(look[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]
    low, high = float(fine.quantile(0.01)), float(fine.quantile(0.99))
    share = ((fine - low) / max(high - low, 1e-12)).clamp(0, 1).numpy()
    ax.imshow(shown.mean(-1), cmap="gray", vmin=0, vmax=1)
    ax.imshow(share, cmap="inferno", alpha=0.15 + 0.6 * share)
