"""Two plots of the section ``time``: the ratio to torch's flash attention, and the rate, over the number of tokens."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["draw"]

BOTH = "forward + backward"
HIGHEST_RATIO = 2.0  # what is slower lies beyond the plot
UNDRAWN = ("sdpa by torch",)  # it is one of the others


def draw(report: Mapping[str, Any], out: Path) -> list[str]:
    """Draw what there are numbers for; return the names of the files."""
    points = points_of(report)
    if not points:
        return []
    base = "sdpa flash" if any(point.get("over sdpa flash") for point in points) else "sdpa by torch"
    return [
        plot(points, f"over {base}", f"time / {base}", out / "ratio.png", HIGHEST_RATIO),
        plot(points, "tflops", "TFLOP/s", out / "rate.png"),
    ]


def points_of(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of forward and backward, at the head dimension and number of heads measured first."""
    cases = [
        case
        for case in report["sections"].get("time", {"cases": []})["cases"]
        if case.get("rows") and case["label"].startswith("B ")
    ]
    if not cases:
        return []
    inputs = [{**case.get("case", {}), **parsed(case["label"])} for case in cases]
    wanted = (inputs[0]["H"], inputs[0]["D"])
    found = [
        {**row, **size}
        for case, size in zip(cases, inputs, strict=True)
        for row in case["rows"]
        if row["direction"] == BOTH and (size["H"], size["D"]) == wanted
    ]
    return list({(point["contender"], point["N"]): point for point in reversed(found)}.values())[::-1]


def parsed(label: str) -> dict[str, int]:
    """Return the numbers of a label such as "B 32 H 12 N 1025 D 64"."""
    words = label.split(",")[0].split()
    return {name: int(number) for name, number in zip(words[::2], words[1::2], strict=True)}


def plot(points: list[dict[str, Any]], what: str, title: str, file: Path, highest: float | None = None) -> str:
    """Draw one number over the tokens, a line a contender; the legend stands beside the plot."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(10, 5), layout="constrained")
    colors = plt.get_cmap("tab20").colors
    drawn = [point for point in points if point.get(what) is not None and point["contender"] not in UNDRAWN]
    for i, name in enumerate(dict.fromkeys(point["contender"] for point in drawn)):
        line = sorted((point["N"], point[what]) for point in drawn if point["contender"] == name)
        width = 2.5 if name.startswith("dropkey") else 1.2
        axis.plot(*zip(*line, strict=True), marker="o", label=name, linewidth=width, color=colors[i % 20])
    tokens = sorted({point["N"] for point in points})
    axis.set_xscale("log")
    axis.set_xticks(tokens, [str(number) for number in tokens])
    axis.minorticks_off()
    axis.set_xlabel("tokens")
    axis.set_ylabel(title)
    axis.set_ylim(bottom=0)
    if highest is not None and axis.get_ylim()[1] > highest:
        axis.set_ylim(top=highest)
        axis.set_ylabel(f"{title} (cut at {highest:g})")
    heads, dim = points[0]["H"], points[0]["D"]
    axis.set_title(f"{BOTH}, bfloat16, {heads} heads of {dim}, about 32,768 tokens a batch", fontsize=10)
    axis.grid(axis="y", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    if drawn:
        figure.legend(frameon=False, fontsize=9, loc="outside right upper")
    figure.savefig(file, dpi=110)
    plt.close(figure)
    return file.name
