"""Sections that go wrong on purpose, for the test of the dry run."""

import os
import time

from benchmarks.gpu.record import Record
from benchmarks.gpu.workers import Worker, asked, now_at, run_cases

__all__ = ["check", "crash", "fail", "hang"]


def fail(record: Record) -> None:
    """Check a case that is wrong, one whose process dies, one that is right, and one that dies at a part of it."""
    run_cases(record, "planted", [{"label": "wrong"}, {"label": "dies"}, {"label": "right"}], 1)
    worker = Worker("planted", record.is_dry)
    record.add("parts", **asked(worker, record, {"label": "parts"}))
    worker.close()


def crash(record: Record) -> None:
    """Die with a case announced."""
    record.plan(["never reached"])
    os._exit(7)


def hang(record: Record) -> None:
    """Find something, then never end."""
    record.plan(["before", "after"])
    record.add("before", "pass")
    time.sleep(1000)


def check(case: dict, is_dry: bool) -> dict:
    """Do what the case is named after."""
    if case["label"] == "wrong":
        raise RuntimeError("wrong on purpose\nwith a second line")
    if case["label"] == "dies":
        os._exit(9)
    if case["label"] == "parts":
        return {"state": "measured", "done": [part for part in ("one", "two", "three") if done(case, part)]}
    return {"state": "pass"}


def done(case: dict, part: str) -> bool:
    """Do a part of a case; the second one ends the process."""
    if part in case["skip"]:
        return False
    now_at(case, part)
    if part == "two":
        os._exit(9)
    return True
