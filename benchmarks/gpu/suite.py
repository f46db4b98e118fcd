"""Section ``pytest``: the tests that are marked for a GPU."""

import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from benchmarks.gpu.record import Record

__all__ = ["run"]

ALL = "tests marked for a GPU"
OPTIONS = ["-v", "-p", "no:cacheprovider", "-W", "default", "--color=no"]
ENDED = re.compile(r"\b(PASSED|FAILED|ERROR|SKIPPED)\b (\S+::.*)")  # as printed by pytest-xdist
STATES = {"PASSED": "pass", "FAILED": "fail", "ERROR": "fail", "SKIPPED": "not run"}


def run(record: Record) -> None:
    """Run the tests in parallel and record each; where time ends, those that have ended."""
    report, screen = record.work / "pytest.xml", record.work / "pytest.txt"
    command = [sys.executable, "-m", "pytest", "tests/ops/triton", "-m", "gpu and not slow", f"--junitxml={report}"]
    command += [*OPTIONS, *(["--collect-only", "-q", "-n", "0"] if record.is_dry else ["-n", "8"])]
    record.plan([ALL])
    code = code_of(command, screen, max(1.0, record.left - 3))
    said = screen.read_text(errors="replace")
    print(said[-20000:], flush=True)
    last = (said.strip().splitlines() or ["no output"])[-1].strip("= ")
    record.note(exit_code=code, summary=last)
    if code is None:
        count = add_printed(record, said)
        record.add(ALL, "not run", reason=f"they did not all end in time; {count} did")
    elif "Unknown marker" in said or code == 5:
        record.add(ALL, "not run", reason=f"no test was collected: {last}")
    elif record.is_dry:
        record.add(ALL, "not run", reason=f"needs a GPU; {last}")
    elif not add_tests(record, report) or code not in (0, 1):
        record.add(ALL, "fail", error=f"pytest ended with {code}: {last}", tail=said.splitlines()[-20:])
    elif code:
        record.add(ALL, "fail", error=last)
    else:
        record.add(ALL, "pass", summary=last)


def code_of(command: list[str], screen: Path, limit: float) -> int | None:
    """Run a command and return its exit code; None if it had to be stopped."""
    with screen.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def add_printed(record: Record, said: str) -> int:
    """Record the tests that were printed as ended; return how many there are."""
    found = ENDED.findall(said)
    for state, label in found:
        facts = {"fail": {"error": "see the log"}, "not run": {"reason": "skipped"}}.get(STATES[state], {})
        record.add(label.strip(), STATES[state], **facts)
    return len(found)


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
