"""What a section has found so far: written to a file of its own after each case, so that a kill loses nothing."""

import json
import math
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["NotHere", "Record", "read", "write_text"]

# A case is one of these; "not run" always comes with a reason.
STATES = ("pass", "fail", "measured", "not run")


class NotHere(Exception):  # noqa: N818  no error
    """A check that cannot run here, with the reason."""


class Record:
    """Results of one section and the time that it has left."""

    def __init__(self, file: Path, limit: float, is_dry: bool) -> None:
        self.file, self.is_dry, self.work = file, is_dry, file.parent
        self.deadline = time.monotonic() + limit
        self.lock = threading.Lock()
        self.data: dict[str, Any] = {"planned": [], "cases": [], "facts": {}}
        self.write()

    @property
    def left(self) -> float:
        """Seconds until the section must have ended."""
        return self.deadline - time.monotonic()

    def plan(self, labels: Iterable[str]) -> None:
        """Announce cases: those without a result in the end are reported as not run."""
        with self.lock:
            self.data["planned"] += list(labels)
            self.write()

    def add(self, label: str, state: str, **facts: Any) -> None:
        """Add the result of a case."""
        assert state in STATES, state
        with self.lock:
            self.data["cases"].append({"label": label, "state": state, **facts})
            self.write()

    def note(self, **facts: Any) -> None:
        """Add what is true of the whole section."""
        with self.lock:
            self.data["facts"].update(facts)
            self.write()

    def write(self) -> None:
        """Replace the file."""
        write_text(self.file, json.dumps(plain(self.data)))


def plain(value: Any) -> Any:
    """Return a value as JSON has it: NaN and infinity as text, what is unknown as its text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def read(file: Path) -> dict[str, Any]:
    """Return what a section has written, or nothing."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return {"planned": [], "cases": [], "facts": {}}


def write_text(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.write_text(text)
    beside.replace(file)
