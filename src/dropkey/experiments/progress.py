"""One bar over all runs of a comparison."""

import sys
from collections.abc import Sequence
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from dropkey.runs.run_folder import RunFolder

__all__ = ["RunsProgress"]


class RunsProgress:
    """Shows on a terminal how much of all runs is done and how long the rest will take; elsewhere nothing.

    It looks into the folders of the runs, so they may run anywhere. What is printed meanwhile stands above the bar.

    Args:
        todo: folders of the runs that are to be trained, and their epochs.
        finished: number of runs that were finished before.
    """

    def __init__(self, todo: Sequence[tuple[RunFolder, int]], finished: int) -> None:
        self._bar = _Bar(todo, finished) if sys.stdout.isatty() else None

    def __enter__(self) -> "RunsProgress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def finish(self, folder: RunFolder) -> None:
        """Count a run as done, whether it ended well or not."""
        if self._bar is not None:
            self._bar.finish(folder)


class _Bar(Progress):
    """A bar that looks by itself at how far the runs are."""

    def __init__(self, todo: Sequence[tuple[RunFolder, int]], finished: int) -> None:
        self._todo = {folder.root: (folder, epochs) for folder, epochs in todo}
        self._finished, self._total = finished, finished + len(todo)
        self._all_runs: TaskID | None = None
        words, left = TextColumn("{task.description}"), TextColumn("left")
        columns = (words, BarColumn(bar_width=None), TaskProgressColumn(), TimeRemainingColumn(), left)
        super().__init__(*columns, transient=True, expand=True, refresh_per_second=2, speed_estimate_period=600)
        self._all_runs = self.add_task("", total=self._total, completed=finished)

    def finish(self, folder: RunFolder) -> None:
        """Count a run as done."""
        del self._todo[folder.root]
        self._finished += 1

    def get_renderables(self) -> Any:
        """Return what is drawn, twice a second."""
        if self._all_runs is not None:
            under_way = sum(_share(folder, epochs) for folder, epochs in list(self._todo.values()))
            words = f"{self._finished} of {self._total} runs"
            self.update(self._all_runs, completed=self._finished + under_way, description=words)
        return super().get_renderables()


def _share(folder: RunFolder, epochs: int) -> float:
    """Return how much of a run is done, from 0 to 1: as of its last epoch that has ended."""
    try:
        *_, last = folder.metrics_file.read_text(encoding="utf-8").splitlines()
        return min(1.0, (int(last.partition(",")[0]) + 1) / epochs)
    except (OSError, ValueError):
        return 0.0
