"""Draw the picture of the patterns in the README from real keep masks: python docs/draw_patterns.py."""

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

import dropkey
from dropkey.patterns import PATTERNS

GRID, RATIO, SEED = (14, 14), 0.3, 20
KEPT, DROPPED, INK, PAPER = "#cfe3f5", "#24476b", "#222222", "#ffffff"
ROWS = [("query 1, head 1", 0, 0), ("query 2, head 1", 0, 1), ("query 1, head 2", 1, 0)]


def draw(axis: Axes, pattern: str, head: int, query: int) -> None:
    """Show which patches one query of one head does not see."""
    num_keys = GRID[0] * GRID[1]
    mask = dropkey.keep_mask(1, 2, 2, num_keys, drop_ratio=RATIO, pattern=pattern, seed=SEED, grid_size=GRID)
    patches = mask[0, head, query].view(GRID).numpy()
    axis.pcolormesh(
        ~patches[::-1], cmap=ListedColormap([KEPT, DROPPED]), edgecolors=PAPER, linewidth=0.8, vmin=0, vmax=1
    )
    axis.set_aspect("equal")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


def main() -> None:
    """Write docs/images/patterns.png."""
    mpl.rcParams.update({"font.size": 12, "text.color": INK, "axes.labelcolor": INK, "figure.facecolor": PAPER})
    figure, axes = plt.subplots(len(ROWS), len(PATTERNS), figsize=(11, 6.7), layout="constrained")
    for row, (label, head, query) in zip(axes, ROWS, strict=True):
        for axis, pattern in zip(row, PATTERNS, strict=True):
            draw(axis, pattern, head, query)
        row[0].set_ylabel(label)
    for axis, pattern in zip(axes[0], PATTERNS, strict=True):
        axis.set_title(pattern, fontweight="bold")
    figure.supxlabel(f"14 x 14 patches of one image; dark = not seen; drop ratio {RATIO}", fontsize=12)
    figure.savefig(Path(__file__).parent / "images" / "patterns.png", dpi=110)


if __name__ == "__main__":
    main()
