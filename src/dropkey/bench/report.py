"""Rows of measurements as a table, as JSON with the machine they were made on, and as a plot over tokens."""

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dropkey.ops.dispatch import backends
from dropkey.runs.machine import machine as of_this_process
from dropkey.text_table import text_table

__all__ = ["draw", "machine", "table", "where", "write"]


def machine() -> dict[str, Any]:
    """Return what a reader must know to judge a time: device, threads, native kernel, versions and date."""
    return {**of_this_process(), "native_kernel": backends()["cpu"], "date": datetime.date.today().isoformat()}


def where() -> str:
    """Return in one line what was measured on."""
    here = machine()
    return f"measured on {here['device']}; threads: {here['threads']}; native kernel: {here['native_kernel']}"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as text: one block a shape and direction (or model), the baseline first."""
    blocks: dict[str, list[list[str]]] = {}
    for row in rows:
        blocks.setdefault(_title(row), [_header(row)]).append(_cells(row))
    return "\n\n".join(f"{title}\n{text_table(cells)}" for title, cells in blocks.items())


def write(rows: Sequence[Mapping[str, Any]], command: str, file: Path) -> None:
    """Write rows as JSON, with the machine and the command that repeats them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"command": command, "machine": machine(), "rows": list(rows)}, indent=1) + "\n")


def draw(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Plot the ratio to torch's attention over the number of tokens, forward and backward together."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    full = [row for row in rows if row.get("direction") == "forward + backward"]
    figure, axis = plt.subplots(figsize=(9, 4.5), layout="constrained")
    for name in dict.fromkeys(row["way"] for row in full):
        points = sorted((row["shape"][2], row["ratio"]) for row in full if row["way"] == name)
        ours = name.startswith("dropkey ")
        axis.plot(*zip(*points, strict=True), marker="o", label=name, linewidth=2.5 if ours else 1.2)
    axis.set_xscale("log")
    tokens = sorted({row["shape"][2] for row in full})
    axis.set_xticks(tokens, [str(number) for number in tokens])
    axis.minorticks_off()
    axis.set_xlabel("tokens")
    axis.set_ylabel("time / SDPA without dropout")
    axis.set_ylim(bottom=0)
    axis.grid(axis="y", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=9, loc="outside right upper")
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _title(row: Mapping[str, Any]) -> str:
    if "model" in row:
        return f"training step of {row['model']}, batch {row['batch_size']}, {row['precision']}"
    return f"(B, H, N, D) = {tuple(row['shape'])}, {row['dtype']}, {row['direction']}"


def _header(row: Mapping[str, Any]) -> list[str]:
    times = ["way", "median ms", "p10 to p90", "ratio"]
    return times if "model" in row else [*times, "of gemm rate", "peak MiB"]


def _cells(row: Mapping[str, Any]) -> list[str]:
    spread = f"{row['p10_ms']:.4g} to {row['p90_ms']:.4g}"
    times = [row["way"], f"{row['median_ms']:.4g}", spread, f"{row['ratio']:.2f}"]
    if "model" in row:
        return times
    share, peak = row["share_of_gemm"], row["peak_mib"]
    return [*times, "-" if share is None else f"{100 * share:.0f}%", "-" if peak is None else f"{peak:.1f}"]
