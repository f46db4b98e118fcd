"""Section ``pytest``: the tests that are marked for a GPU."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from benchmarks.gpu.record import Record

__all__ = ["run"]

QUIET = ["-q", "-p", "no:cacheprovider", "-W", "default::DeprecationWarning"]


def run(record: Record) -> None:
    """Run the tests in parallel and record each."""
    file = record.work / "pytest.xml"
    command = [sys.executable, "-m", "pytest", "tests/ops/triton", "-m", "gpu", f"--junitxml={file}", *QUIET]
    command += ["--collect-only", "-n", "0"] if record.is_dry else ["-n", "8"]
    record.plan(["tests marked for a GPU"])
    try:
        done = subprocess.run(command, timeout=max(1.0, record.left - 1), capture_output=True, text=True, check=False)
    except subprocess.TimeoutExpired as error:
        print(error.stdout, flush=True)
        record.add("tests marked for a GPU", "not run", reason="did not end in time")
        return
    print(done.stdout, done.stderr, flush=True)
    last = (done.stdout.strip().splitlines() or ["no output"])[-1]
    record.note(exit_code=done.returncode, summary=last)
    if "Unknown marker" in done.stderr:
        record.add("tests marked for a GPU", "not run", reason="no test has the marker")
    elif done.returncode == 5:
        record.add("tests marked for a GPU", "not run", reason="no test was collected")
    elif record.is_dry:
        record.add("tests marked for a GPU", "not run", reason=f"needs a GPU; {last}")
    elif not add_tests(record, file) or done.returncode not in (0, 1):
        tail = (done.stdout + done.stderr).splitlines()[-20:]
        record.add("tests marked for a GPU", "fail", error=f"pytest ended with {done.returncode}: {last}", tail=tail)
    else:
        record.add("tests marked for a GPU", "pass" if done.returncode == 0 else "fail", error=last)


def add_tests(record: Record, file: Path) -> int:
    """Record every test of a report; return how many there are."""
    try:
        tests = list(ElementTree.parse(file).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return 0
    for test in tests:
        label = f"{test.get('classname')}::{test.get('name')}"
        problem = next((part for kind in ("failure", "error") for part in test.iter(kind)), None)
        skipped = test.find("skipped")
        if problem is not None:
            text = problem.text or ""
            record.add(label, "fail", error=(problem.get("message") or "")[:500], tail=text.splitlines()[-20:])
        elif skipped is not None:
            record.add(label, "not run", reason=f"skipped: {skipped.get('message')}")
        else:
            record.add(label, "pass")
    return len(tests)
