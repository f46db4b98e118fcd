"""Processes that check one case after the other; one that crashes or hangs costs the case it was at."""

import contextlib
import importlib
import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.gpu.record import NotHere, Record, plain

__all__ = ["Worker", "asked", "failure", "now_at", "num_workers", "run_cases", "serve"]

# What leaves a process without a usable GPU: it ends itself, and a new one goes on.
POISON = ("cuda error", "illegal memory", "misaligned", "launch failure", "device-side assert", "cublas_status")
CASE_LIMIT = 60.0  # seconds
# For processes that work side by side: the cores are theirs together.
SHARING = {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "2"}


def num_workers(is_dry: bool) -> int:
    """Return how many processes to use."""
    return 1 if is_dry else max(1, min(12, (os.cpu_count() or 1) - 2))


class Worker:
    """This end of a process that checks cases: ``ask`` never raises."""

    def __init__(self, kind: str, is_dry: bool, environment: dict[str, str] | None = None) -> None:
        self.command = [sys.executable, "-m", "benchmarks.gpu", "--worker", kind, *["--dry-run"] * is_dry]
        self.environment = {**os.environ, **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, case: dict[str, Any], limit: float) -> dict[str, Any]:
        """Return the facts of a case: its state, and whatever was found."""
        began = time.monotonic()
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(case).encode() + b"\n")
            self.process.stdin.flush()
            line = self._line(began + limit)
        except OSError:
            line = b""
        facts: dict[str, Any] = {"seconds": round(time.monotonic() - began, 2)}
        if line is None:
            self.close()
            return {"state": "fail", "error": f"no answer within {limit:.0f} s", **facts}
        if not line:
            code = self.process.wait()
            return {"state": "fail", "error": f"its process ended with code {code}", **facts}
        try:
            answer = json.loads(line)
        except ValueError:
            self.close()
            return {"state": "fail", "error": f"an answer that is none: {line[:200]!r}", **facts}
        if answer.get("poisoned"):
            self.close()
        return {**answer, **facts}

    def _line(self, until: float) -> bytes | None:
        """Return the answer, b"" if the process has ended, None if it is not there in time."""
        assert self.process is not None
        assert self.process.stdout is not None
        got = b""
        while not got.endswith(b"\n"):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                return None
            part = os.read(self.process.stdout.fileno(), 1 << 20)
            if not part:
                return b""
            got += part
        return got

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            self.process = None


def run_cases(
    record: Record,
    kind: str,
    cases: Iterable[dict[str, Any]],
    workers: int,
    *,
    fresh: bool = False,
    reserve: float = 2,
    quiet: bool = False,
) -> None:
    """Check cases side by side until ``reserve`` seconds are left.

    ``fresh``: each in a process of its own; ``quiet``: only failures are recorded.
    """
    cases = list(cases)
    if not quiet:
        record.plan(case["label"] for case in cases)
    waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    for case in cases:
        waiting.put(case)

    def work() -> None:
        worker = Worker(kind, record.is_dry, {} if record.is_dry else SHARING)
        while record.left > reserve and (case := next_of(waiting)):
            facts = one_of_many(worker, record, case, reserve)
            if facts["state"] == "fail" or not quiet:
                record.add(case["label"], case=case, **facts)
            if fresh:
                worker.close()
        worker.close()

    threads = [threading.Thread(target=work) for _ in range(min(workers, len(cases)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def next_of(waiting: "queue.SimpleQueue[dict[str, Any]]") -> dict[str, Any] | None:
    """Return the next case, None if there is none."""
    try:
        return waiting.get_nowait()
    except queue.Empty:
        return None


def one_of_many(worker: Worker, record: Record, case: dict[str, Any], reserve: float) -> dict[str, Any]:
    """Return the facts of a case; one that the section's end has cut off is not run."""
    limit = min(CASE_LIMIT, max(0.5, record.left - reserve / 2))
    facts = worker.ask(case, limit)
    if limit < CASE_LIMIT and str(facts.get("error")).startswith("no answer"):
        facts.update(state="not run", reason="the section's time was over")
    return facts


def asked(worker: Worker, record: Record, case: dict[str, Any], limit: float | None = None) -> dict[str, Any]:
    """Return the facts of a case that measures several things; one that breaks the process is recorded and left out."""
    trace = record.work / "now_at"
    skip: list[str] = []
    while True:
        trace.unlink(missing_ok=True)
        longest = max(0.5, min(record.left - 1, record.left if limit is None else limit))
        whole = {**case, "skip": skip, "left": longest - 2, "trace": str(trace)}
        facts = worker.ask(whole, longest)
        if facts["state"] != "fail":
            return facts
        culprit = facts.get("culprit") or (trace.read_text() if trace.exists() else "")
        if record.left < 4 and str(facts.get("error")).startswith("no answer"):
            what = f", at {culprit}" if culprit else ""
            return {**facts, "state": "not run", "reason": f"the section's time was over{what}"}
        if not culprit or culprit in skip or not is_broken(facts) or record.left < 4:
            return facts
        record.add(f"{case['label']}: {culprit}", "fail", error=facts.get("error"), tail=facts.get("tail"))
        skip.append(culprit)


def is_broken(facts: dict[str, Any]) -> bool:
    """Say whether the process had to be ended, or ended itself."""
    return bool(facts.get("poisoned")) or str(facts.get("error")).startswith(("no answer", "its process ended"))


def now_at(case: dict[str, Any], name: str) -> None:
    """Leave a note of what is being tried, for the case that the process does not survive it."""
    Path(case["trace"]).write_text(name)


def serve(kind: str, is_dry: bool) -> None:
    """Answer cases that come as lines of JSON, until there are no more; whatever else is printed goes to the log."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    check = None
    for line in sys.stdin:
        case = json.loads(line)
        if check is None:
            try:
                check = importlib.import_module(f"benchmarks.gpu.{kind}").check
            except BaseException:
                check = broken(traceback.format_exc())
        answers.write(json.dumps(plain(guarded(check, case, is_dry))) + "\n")
        answers.flush()


def broken(text: str):
    """Return a check that always fails, since its module could not be imported."""

    def check(*_: Any) -> dict[str, Any]:
        raise RuntimeError(text)

    return check


def guarded(check, case: dict[str, Any], is_dry: bool) -> dict[str, Any]:
    """Return what a check finds; an exception is a failure, with its text."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("default")
        try:
            facts = check(case, is_dry)
        except NotHere as error:
            facts = {"state": "not run", "reason": str(error)}
        except BaseException as error:
            facts = failure(error)
    ours = list(dict.fromkeys(str(one.message) for one in heard if is_ours(one)))
    if ours:
        facts["warnings"] = ours
        if facts["state"] in ("pass", "measured") and any("not used" in text for text in ours):
            facts.update(state="fail", error=f"something else ran: {ours[0]}")
    return facts


def is_ours(warning: warnings.WarningMessage) -> bool:
    """Say whether a warning is about our package."""
    return "dropkey" in warning.filename or "dropkey" in str(warning.message)


def failure(error: BaseException) -> dict[str, Any]:
    """Return how an exception is reported: its first line, and the end of what it says."""
    text = "".join(traceback.format_exception(error))
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    facts: dict[str, Any] = {"state": "fail", "error": f"{type(error).__name__}: {first}"[:500]}
    facts["tail"] = [line[:300] for line in text.splitlines()[-20:]]
    if any(word in text.lower() for word in POISON):
        facts["poisoned"] = True
    return facts
