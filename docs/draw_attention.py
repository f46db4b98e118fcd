"""Draw the picture of attention with and without DropKey in the README: python docs/draw_attention.py [RUNS].

Two small ViTs are trained by ``dropkey train`` on scikit-learn's digits, alike but for DropKey, one seed each; runs
that are there already are taken as they are. Below each digit stands where one patch looks in each block, the mean
over the heads; beside them how wide attention is.
"""

import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

import dropkey
from dropkey.cli import main as dropkey_command
from dropkey.diagnostics.report import Report
from dropkey.runs.run_folder import RunFolder
from dropkey.tasks.loading import load_run

ARMS = {
    "without": ["--regularizer", "none"],
    "with DropKey": ["--regularizer", "dropkey", "--drop-ratio", "0.3"],
}
OPTIONS = ["--data", "digits", "--img-size", "16", "--epochs", "8", "--workers", "0"]
INK, PAPER, COLORS = "#222222", "#ffffff", {"without": "#b8590f", "with DropKey": "#1f5f99"}
DIGITS, QUERY = 3, (3, 3)


def trained(root: Path, arm: str) -> RunFolder:
    """Return the run of one arm, trained now if it was not before."""
    folder = RunFolder(root / arm.replace(" ", "-"))
    if not folder.summary_file.exists() and dropkey_command(
        ["train", *OPTIONS, *ARMS[arm], "--output", str(folder.root)]
    ):
        raise SystemExit(f"training {arm} failed")
    return folder


def report_of(folder: RunFolder) -> Report:
    """Look at the first validation images."""
    run = load_run(folder)
    images = next(iter(run.data.val_dataloader()[0]))[0][:DIGITS]
    return dropkey.diagnose(run.network, images)


def draw_looks(figure: mpl.figure.SubFigure, reports: dict[str, Report]) -> None:
    """Show where one patch looks: a row for each digit and arm, a column for each block."""
    first = next(iter(reports.values()))
    axes = figure.subplots(DIGITS * len(reports), len(first.sites) + 1, squeeze=False)
    for digit in range(DIGITS):
        for place, (arm, report) in enumerate(reports.items()):
            row = axes[digit * len(reports) + place]
            row[0].imshow(first.images[digit, 0], cmap="gray_r")
            row[0].set_ylabel(arm, rotation=0, ha="right", va="center")
            for axis, site in zip(row[1:], report.sites, strict=True):
                rows, columns = site.query_grid or (1, 1)
                look = site.maps[digit].mean(0)[site.num_query_prefix + QUERY[0] * columns + QUERY[1]]
                axis.imshow(look.view(rows, columns), cmap="inferno", vmin=0)
                axis.plot(QUERY[1], QUERY[0], "o", mfc="none", mec="white", ms=7, mew=1.5)
    for place, axis in enumerate(axes[0]):
        axis.set_title("image" if place == 0 else f"block {place}", fontsize=11)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])


def draw_entropy(figure: mpl.figure.SubFigure, reports: dict[str, Report], accuracies: dict[str, float]) -> None:
    """Show the entropy over depth."""
    axis = figure.subplots()
    for arm, report in reports.items():
        label = f"{arm}: {accuracies[arm]:.1%} of validation images right"
        axis.plot(range(1, len(report.sites) + 1), report.measure("entropy"), "o-", color=COLORS[arm], label=label)
    axis.set_xticks(range(1, len(report.sites) + 1))
    axis.set_xlabel("block")
    axis.set_title("entropy of attention, in nats", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.18))


def main() -> None:
    """Write docs/images/attention.png."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/attention-picture")
    folders = {arm: trained(root, arm) for arm in ARMS}
    reports = {arm: report_of(folder) for arm, folder in folders.items()}
    accuracies = {arm: folder.read_summary()["final_val_accuracy"] for arm, folder in folders.items()}
    mpl.rcParams.update({"font.size": 10, "text.color": INK, "axes.labelcolor": INK, "figure.facecolor": PAPER})
    figure = plt.figure(figsize=(10.5, 6.4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.6, 1))
    draw_looks(left, reports)
    draw_entropy(right, reports, accuracies)
    figure.savefig(Path(__file__).parent / "images" / "attention.png", dpi=110)


if __name__ == "__main__":
    main()
