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
from typing import Any

from benchmarks.gpu.record import NotHere, Record, plain

__all__ = ["Worker", "num_workers", "run_cases", "serve"]

# What leaves a process without a usable GPU: it ends itself, and a new one goes on.
POISON = ("cuda error", "illegal memory", "misaligned", "launch failure", "device-side assert", "cublas_status")
CASE_LIMIT = 75.0  # seconds


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
        answer = json.loads(line)
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
    record: Record, kind: str, cases: Iterable[dict[str, Any]], workers: int, *, fresh: bool = False, reserve: float = 2
) -> None:
    """Check cases side by side and record each; ``fresh``: each in a process of its own."""
    cases = list(cases)
    record.plan(case["label"] for case in cases)
    waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    for case in cases:
        waiting.put(case)

    def work() -> None:
        worker = Worker(kind, record.is_dry)
        while record.left > reserve:
            try:
                case = waiting.get_nowait()
            except queue.Empty:
                break
            facts = worker.ask(case, min(CASE_LIMIT, max(0.5, record.left - reserve / 2)))
            if record.left <= reserve and "no answer" in str(facts.get("error")):
                facts["state"], facts["reason"] = "not run", "the section's time was over"
            record.add(case["label"], case=case, **facts)
            if fresh:
                worker.close()
        worker.close()

    threads = [threading.Thread(target=work) for _ in range(min(workers, len(cases)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


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
        if facts["state"] in ("pass", "measured") and any("sdpa" in text for text in ours):
            facts.update(state="fail", error=f"another backend took over: {ours[0]}")
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
