"""The folder of one run: what lies where, and writing it so that a crash leaves the old file or the new one."""

import contextlib
import csv
import io
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dropkey.errors import RunError
from dropkey.runs.yaml_file import read_options

__all__ = ["RunFolder", "check_writable", "fresh_run_folder", "write_atomically"]


class RunFolder:
    """Paths and files of one run.

    Args:
        root: the folder; made when something is first written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config_file = root / "config.yaml"
        self.metrics_file = root / "metrics.csv"
        self.summary_file = root / "summary.json"
        self.curves_file = root / "curves.png"
        self.last_checkpoint = root / "checkpoints" / "last.ckpt"
        self.best_checkpoint = root / "checkpoints" / "best.ckpt"

    def foreign_file(self) -> Path | None:
        """Return a file that a new run would write over, if there is one."""
        return next((file for file in self.files if file != self.config_file and file.exists()), None)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that training writes."""
        written = (self.config_file, self.metrics_file, self.summary_file, self.curves_file)
        return *written, self.last_checkpoint, self.best_checkpoint

    @property
    def holds_a_run(self) -> bool:
        """Whether a run was started here."""
        return self.config_file.exists()

    def make(self) -> None:
        """Make the folder, or raise a RunError that says why it cannot be written."""
        try:
            self.last_checkpoint.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the run folder {self.root}: {error.strerror}") from None

    def write_config(self, values: Mapping[str, Any]) -> None:
        """Write config.yaml."""
        write_atomically(self.config_file, yaml.safe_dump(dict(values), sort_keys=False).encode())

    def read_config(self) -> dict[str, Any]:
        """Return the options in config.yaml, or raise a RunError if there are none."""
        try:
            return read_options(self.config_file)
        except FileNotFoundError:
            raise RunError(f"{self.root} is not a run folder: it holds no config.yaml") from None

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics.csv, one row per epoch."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.metrics_file, text.getvalue().encode())

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json."""
        write_atomically(self.summary_file, (json.dumps(summary, indent=2) + "\n").encode())

    def read_summary(self) -> dict[str, Any]:
        """Return summary.json, or raise a RunError if it cannot be read."""
        try:
            summary = json.loads(self.summary_file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError, OSError):
            summary = None
        if not isinstance(summary, dict) or "epochs" not in summary:
            raise RunError(
                f"{self.summary_file} is damaged: delete it, and --resume writes it again from the last checkpoint"
            )
        return summary

    def read_metrics(self) -> list[dict[str, float]]:
        """Return the rows of metrics.csv, or raise a RunError if they cannot be read."""
        try:
            with self.metrics_file.open(encoding="utf-8") as file:
                rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        except (OSError, ValueError, TypeError, csv.Error):
            rows = []
        if not rows:
            remedy = f"delete {self.summary_file.name} beside it, and --resume writes both again"
            raise RunError(f"{self.metrics_file} is damaged: {remedy}")
        return rows


def fresh_run_folder(stem: str) -> RunFolder:
    """Return a folder below ``runs/`` that holds no run yet, named after what is trained."""
    root, count = Path("runs") / stem, 1
    while root.exists():
        count += 1
        root = Path("runs") / f"{stem}-{count}"
    return RunFolder(root)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, also if the machine stops in between.

    Raises:
        RunError: it cannot be written; what was there before is still there.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # nor may it be deleted: a file system that is read-only, a name too long
            part.unlink(missing_ok=True)
        raise RunError(f"cannot write {path}: {error.strerror}") from None


def check_writable(path: Path, begins: bytes = b"") -> None:
    """Raise a RunError if a file could not be written, before the work of which it is to hold the result.

    Args:
        path: of the file.
        begins: how every file of its kind begins, in lower case. One that is there and begins otherwise is no earlier
            result, but something that the user would miss.
    """
    if path.is_dir() or not path.name:
        raise RunError(f"cannot write {path}: it is a folder")
    if any(path in run.files and run.holds_a_run for run in (RunFolder(path.parent), RunFolder(path.parent.parent))):
        raise RunError(f"cannot write {path}: it is a file of the run itself; choose another name")
    with contextlib.suppress(OSError), path.open("rb") as file:
        start = file.read(200).lstrip().lower()
        if start and not start.startswith(begins):
            raise RunError(f"cannot write {path}: it holds something else than such results; choose another name")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from None
