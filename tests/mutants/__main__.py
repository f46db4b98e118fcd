"""Plant every fault, one at a time, in a copy of the package and see that its tests fail.

Run from the repository's root as ``PYTHONPATH=tests python -m mutants [word ...]``; words choose faults by name. The
tests must pass without a fault first. Each run is a forked child, so torch is imported once. Exit code 1 if any fault
survives.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import pytest
import timm  # noqa: F401  imported before the forks
import torch

from mutants.faults import FAULTS, Fault

ROOT = Path(__file__).parents[2]
# Modules imported before the fork would be reported as "already imported", which our settings make an error.
_QUIET = ["-o", "filterwarnings=ignore::pytest.PytestAssertRewriteWarning"]


def exit_code(tests: str, fault: Fault | None) -> int:
    """Run tests in a forked child on a copy of the package, with or without a fault; return pytest's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "src" / "dropkey", Path(folder) / "dropkey")
        if fault is not None:
            plant(fault, Path(folder) / "dropkey")
        child = os.fork()
        if child == 0:
            _run_tests(tests, folder)
        _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def plant(fault: Fault, package: Path) -> None:
    """Write one fault into a copy of the package."""
    file = package / fault.file
    text = file.read_text()
    assert fault.right in text, f"{fault.name}: its text is no longer in {fault.file}"
    file.write_text(text.replace(fault.right, fault.wrong, 1))


def _run_tests(tests: str, folder: str) -> None:
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    torch.set_num_threads(1)
    sys.path.insert(0, folder)
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:doctest"]
    os._exit(pytest.main([*options, "-o", "addopts=--import-mode=importlib", *_QUIET, str(ROOT / tests)]))


def main() -> int:
    words = sys.argv[1:]
    chosen = [fault for fault in FAULTS if not words or any(word in fault.name for word in words)]
    for tests in sorted({fault.tests for fault in chosen}):
        assert exit_code(tests, None) == 0, f"{tests} fails without any fault: mend that first"
    survivors = []
    for fault in chosen:
        start = time.perf_counter()
        is_noticed = (
            exit_code(fault.tests, fault) == 1
        )  # 1 is "tests failed"; a package that cannot be imported gives 2
        seconds = time.perf_counter() - start
        print(f"{'killed  ' if is_noticed else 'SURVIVED'}  {seconds:5.1f} s  {fault.name}", flush=True)
        if not is_noticed:
            survivors.append(fault)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} planted faults killed")
    return bool(survivors)


if __name__ == "__main__":
    assert "dropkey" not in sys.modules
    sys.exit(main())
