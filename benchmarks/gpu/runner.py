"""The whole run: sections as processes with a time limit, one after the other, and the report kept up to date."""

import contextlib
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.record import Record, read, write_text
from benchmarks.gpu.report import as_text, brief
from benchmarks.gpu.sections import PLANTED, Section, function_of

__all__ = ["Runner", "run_section"]

GRACE = 6.0  # seconds after its limit in which a section may end by itself
LEAST = 8.0  # with less time than this a section is not begun
MOST = 2.0  # shares of its own that a section may use, of what others have left over


class Runner:
    """Runs sections and writes ``report.json``, ``report.txt``, ``log.txt`` and the plots."""

    def __init__(
        self, out: Path, sections: Sequence[Section], budget: float | None, is_dry: bool, has_planted: bool
    ) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.is_dry = out, is_dry
        self.sections = [*(PLANTED.values() if has_planted else ()), *sections]
        shares = sum(section.seconds for section in self.sections)
        self.budget = shares if budget is None else budget
        self.scale = self.budget / shares
        self.work = Path(tempfile.mkdtemp(prefix="dropkey-gpu-"))
        self.began = time.monotonic()
        self.log = (out / "log.txt").open("a", buffering=1)
        self.process: subprocess.Popen[bytes] | None = None
        self.report: dict[str, Any] = {"machine": {}, "budget_s": self.budget, "dry_run": is_dry, "sections": {}}

    def run(self) -> int:
        """Run everything; return 1 if anything failed."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            self.report["machine"] = machine(self.log)
            self.write()
            share = 0.0
            for section in self.sections:
                share += section.seconds * self.scale
                left = self.began + share - time.monotonic()
                self.run_section(section, min(left, MOST * section.seconds * self.scale))
        finally:
            self.stop()
            self.finish()
        states = [section["state"] for section in self.report["sections"].values()]
        cases = [case["state"] for section in self.report["sections"].values() for case in section["cases"]]
        return int("fail" in cases or any(state not in ("done", "left out") for state in states))

    def run_section(self, section: Section, limit: float) -> None:
        """Run one section until it ends or must be stopped."""
        entry = self.report["sections"][section.name] = {"state": "running", "limit_s": round(limit, 1), "cases": []}
        if limit < min(LEAST, section.seconds):
            entry.update(state="left out", reason=f"only {limit:.0f} s were left")
            self.write()
            return
        self.say(f"section {section.name}: at most {limit:.0f} s")
        began, file = time.monotonic(), self.work / f"{section.name}.json"
        command = [sys.executable, "-m", "benchmarks.gpu", "--run-section", section.name]
        command += ["--work", str(self.work), "--limit", str(limit), *["--dry-run"] * self.is_dry]
        environment = {**os.environ, **section.environment(self.is_dry)}
        self.process = subprocess.Popen(
            command, env=environment, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL, start_new_session=True
        )
        code = self.wait(section.name, file, began + limit + GRACE)
        self.stop()
        state = {None: "stopped", 0: "done"}.get(code, "crashed")
        entry.update(state=state, seconds=round(time.monotonic() - began, 1))
        if code is None:
            entry["reason"] = f"did not end within {limit:.0f} s"
        elif code:
            entry["reason"] = f"its process ended with code {code}"
        self.merge(section.name, file)
        self.write()
        self.say(f"section {section.name}: {state} after {entry['seconds']} s")

    def wait(self, name: str, file: Path, until: float) -> int | None:
        """Wait for the section, keeping the report up to date; return its exit code, None if it was too slow."""
        assert self.process is not None
        written = time.monotonic()
        while time.monotonic() < until:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(0.2)
            if time.monotonic() > written + 2:
                self.merge(name, file)
                self.write()
                written = time.monotonic()
        return None

    def merge(self, name: str, file: Path) -> None:
        """Take over what a section has written so far; what it has not come to is not run."""
        found, entry = read(file), self.report["sections"][name]
        seen = {case["label"] for case in found["cases"]}
        why = "not reached yet" if entry["state"] == "running" else f"the section {REASONS[entry['state']]}"
        rest = [{"label": label, "state": "not run", "reason": why} for label in found["planned"] if label not in seen]
        entry.update(cases=found["cases"] + rest, facts=found["facts"])

    def stop(self) -> None:
        """End the section's process and all that it has started."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def write(self) -> None:
        """Write the report as far as it has come."""
        self.report["seconds"] = round(time.monotonic() - self.began, 1)
        write_text(self.out / "report.json", json.dumps(self.report, indent=1) + "\n")
        try:
            write_text(self.out / "report.txt", as_text(self.report))
        except Exception:
            self.say(traceback.format_exc())

    def finish(self) -> None:
        """Write the report for the last time, with plots."""
        for entry in self.report["sections"].values():
            if entry["state"] == "running":
                entry.update(state="stopped", reason="the run was ended from outside")
        self.write()
        try:
            from benchmarks.gpu.plots import draw

            self.report["plots"] = draw(self.report, self.out)
        except Exception:
            self.report["plots"] = f"not drawn: {traceback.format_exc().splitlines()[-1]}"
            self.say(traceback.format_exc())
        self.write()
        print(brief(self.report), flush=True)

    def say(self, text: str) -> None:
        """Write a line to the log and to the screen."""
        line = f"[{time.monotonic() - self.began:6.1f} s] {text}"
        print(line, flush=True)
        self.log.write(line + "\n")


REASONS = {
    "done": "had no time left",
    "stopped": "was stopped",
    "crashed": "crashed",
    "left out": "was left out",
}


def run_section(name: str, work: Path, limit: float, is_dry: bool) -> None:
    """Run a section in this process."""
    function_of(name)(Record(work / f"{name}.json", limit, is_dry))


def machine(log: Any) -> dict[str, Any]:
    """Return card, driver, versions, date and command; asked of a process of its own, which may fail."""
    facts: dict[str, Any] = {
        "command": " ".join(map(shlex.quote, ["python", "-m", "benchmarks.gpu", *sys.argv[1:]])),
        "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }
    for name, command in {
        "driver": ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.sm", "--format=csv,noheader"],
        "versions": [sys.executable, "-m", "benchmarks.gpu.versions"],
    }.items():
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True, timeout=60, check=True)
            text = done.stdout.strip()
            facts.update(json.loads(text) if name == "versions" else {name: text})
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            facts[name] = f"unknown: {type(error).__name__}"
    return facts
