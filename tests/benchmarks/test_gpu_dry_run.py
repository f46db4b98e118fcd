"""The run prepared for a GPU, gone through at tiny sizes: every section reports, and what goes wrong stops nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECTIONS = ["correctness", "pytest", "features", "time", "tune", "first_call", "step"]
PLANTED = ["planted_failures", "planted_crash", "planted_hang"]


def run(out: Path, *arguments: str) -> tuple[dict, subprocess.CompletedProcess]:
    """Run the command and return its report."""
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "TRITON"))}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--out", str(out), "--dry-run", *arguments],
        cwd=ROOT, env={**variables, "PYTHONPATH": os.pathsep.join(paths)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return json.loads((out / "report.json").read_text()), done


@pytest.fixture(scope="module")
def dry(tmp_path_factory):
    """What the whole dry run leaves, with a failing, a crashing and a hanging section in front."""
    pytest.importorskip("triton")
    out = tmp_path_factory.mktemp("dry")
    report, done = run(out, "--plant")
    return out, report, done


def counts(section: dict) -> dict[str, int]:
    states = [case["state"] for case in section["cases"]]
    return {state: states.count(state) for state in dict.fromkeys(states)}


@pytest.mark.slow  # a minute for all of them: before a GPU is used, and not with every change
def test_every_section_reports(dry):
    _, report, _ = dry
    assert list(report["sections"]) == PLANTED + SECTIONS
    for name in SECTIONS:
        section = report["sections"][name]
        assert section["state"] == "done", (name, section)
        assert section["cases"], name
        assert not counts(section).get("fail"), [case for case in section["cases"] if case["state"] == "fail"]


@pytest.mark.slow  # a minute for all of them: before a GPU is used, and not with every change
def test_what_is_not_run_has_a_reason(dry):
    for section in dry[1]["sections"].values():
        assert all(case["reason"] for case in section["cases"] if case["state"] == "not run")


@pytest.mark.slow  # a minute for all of them: before a GPU is used, and not with every change
def test_kernels_are_checked_where_the_interpreter_works(dry):
    found = dry[1]["sections"]["correctness"]
    reasons = {case.get("reason", "") for case in found["cases"]}
    if any("interpreter fails" in reason for reason in reasons):
        pytest.skip("Triton's interpreter does not work here")
    assert counts(found)["pass"] >= 12
    assert counts(dry[1]["sections"]["features"])["pass"] >= 6


@pytest.mark.slow  # a minute for all of them: before a GPU is used, and not with every change
def test_a_failing_case_and_a_dying_process_are_failures_and_the_next_case_is_checked(dry):
    out, report, done = dry
    cases = {case["label"]: case for case in report["sections"]["planted_failures"]["cases"]}
    assert [case["state"] for case in cases.values()] == ["fail", "fail", "pass", "fail", "measured"]
    assert cases["wrong"]["error"] == "RuntimeError: wrong on purpose"
    assert cases["dies"]["error"] == "its process ended with code 9"
    assert cases["parts: two"]["state"] == "fail"
    assert cases["parts"]["done"] == ["one", "three"]
    assert done.returncode == 1
    assert "wrong on purpose" in done.stdout
    assert "RuntimeError: wrong on purpose" in (out / "report.txt").read_text()


@pytest.mark.slow  # a minute for all of them: before a GPU is used, and not with every change
def test_a_crashing_section_says_so(dry):
    section = dry[1]["sections"]["planted_crash"]
    assert (section["state"], section["reason"]) == ("crashed", "its process ended with code 7")
    assert [case["state"] for case in section["cases"]] == ["not run"]


@pytest.mark.slow  # a minute for all of them: before a GPU is used, and not with every change
def test_a_hanging_section_is_stopped_and_keeps_what_it_found(dry):
    section = dry[1]["sections"]["planted_hang"]
    assert section["state"] == "stopped"
    assert [(case["label"], case["state"]) for case in section["cases"]] == [("before", "pass"), ("after", "not run")]


@pytest.mark.slow  # a minute for all of them: before a GPU is used, and not with every change
def test_no_test_collected_is_not_a_pass(dry):
    assert "pass" not in counts(dry[1]["sections"]["pytest"])


@pytest.mark.slow  # a minute for all of them: before a GPU is used, and not with every change
def test_few_files(dry):
    names = sorted(file.name for file in dry[0].iterdir())
    assert names == ["log.txt", "rate.png", "ratio.png", "report.json", "report.txt"]


def test_without_time_a_section_is_left_out(tmp_path):
    report, done = run(tmp_path, "--only", "step,tune", "--budget", "4")
    assert [section["state"] for section in report["sections"].values()] == ["left out", "left out"]
    assert all("were left" in section["reason"] for section in report["sections"].values())
    assert "left out" in done.stdout
