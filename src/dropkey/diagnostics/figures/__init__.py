"""Figures of a report, by matplotlib: for papers and notebooks."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dropkey.diagnostics.figures.maps import maps
from dropkey.diagnostics.figures.measures import measures
from dropkey.diagnostics.figures.overlay import overlay
from dropkey.diagnostics.figures.similarity import similarity
from dropkey.errors import ArgumentError, did_you_mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dropkey.diagnostics.report import Report

__all__ = ["FIGURES", "draw"]

FIGURES: dict[str, Callable[..., "Figure"]] = {
    "maps": maps,
    "overlay": overlay,
    "measures": measures,
    "similarity": similarity,
}


def draw(report: "Report", kind: str, **options: Any) -> "Figure":
    """Draw the figure of that name.

    Raises:
        ArgumentError: an unknown figure, or an option that does not fit.
    """
    if kind not in FIGURES:
        raise ArgumentError(f"no figure {kind!r}{did_you_mean(kind, FIGURES)}; known: {', '.join(FIGURES)}")
    return FIGURES[kind](report, **options)
