"""The package as a whole: what it imports, what it promises in README, and the tools that check it."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from unittest import mock

import pytest
import timm
from mutants.faults import FAULTS

from dropkey.patterns import PATTERNS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def run(*command, **arguments):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **arguments)


def python(code):
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_needs_torch_alone():
    code = """
import sys, torch
before = set(sys.modules)
import dropkey
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))
"""
    assert python(code).split() == ["dropkey"]


def test_import_takes_torchs_time_and_little_more():
    """Under 0.2 s beside torch's own; processor time, the best of three, since the machine may be busy."""
    code = "import time, torch; start = time.process_time(); import dropkey; print(time.process_time() - start)"
    assert min(float(python(code)) for _ in range(3)) < 0.2


def shell_blocks(page):
    return re.findall(r"```(?:bash|sh|shell)\n(.*?)```", page.read_text(), flags=re.DOTALL)


def python_blocks():
    for page in PAGES:
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)):
            yield pytest.param(block, id=f"{page.relative_to(ROOT)}:{number}")


@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")  # Lightning on a newer torch
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
@pytest.mark.parametrize("block", list(python_blocks()))
def test_code_of_the_docs_runs(block, monkeypatch, tmp_path):
    """Without a network: what the docs download starts from random weights here."""
    for library in ("rfdetr", "ultralytics"):  # where they are installed: the extra ``compat``, or by hand
        if library in block:
            pytest.importorskip(library)
    create_model = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: create_model(*a, **{**k, "pretrained": False}))
    monkeypatch.chdir(tmp_path)
    with mock.patch.dict(PATTERNS):  # a pattern that a page registers goes with it
        exec(compile(block, "docs", "exec"), {"__name__": "docs"})


def test_ci_runs_what_the_readme_says():
    lines = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith(("python3", ".venv"))]
    start, tests = shell_blocks(ROOT / "README.md")
    assert lines == tests.splitlines()
    assert [len(block.splitlines()) for block in (start, tests)] == [1, 1]  # each can be pasted as one line


def test_links_of_the_docs_lead_somewhere():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_decisions_are_short():
    for record in (ROOT / "docs" / "decisions").glob("*.md"):
        assert len(record.read_text().splitlines()) < 40, record.name


@pytest.mark.parametrize(
    "tool",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"], ["lint-imports"]],
    ids=" ".join,
)
def test_tool_is_content(tool):
    program = shutil.which(tool[0], path=str(Path(sys.executable).parent))
    assert program, f"{tool[0]} is not installed beside this Python: pip install '.[dev]'"
    done = run(program, *tool[1:])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_every_planted_fault_is_killed():
    done = run(sys.executable, "-m", "mutants", env={"PYTHONPATH": str(ROOT / "tests"), "PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_sdist_and_wheel_install_into_a_clean_environment(tmp_path):
    done = run(sys.executable, "-m", "build", "--outdir", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    for archive in sorted(tmp_path.glob("dropkey-*")):
        folder = tmp_path / archive.suffix.strip(".")
        done = run(sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(folder), str(archive))
        assert done.returncode == 0, done.stderr
        code = f"import sys; sys.path.insert(0, {str(folder)!r}); import dropkey; print(dropkey.__file__)"
        assert str(folder) in python(code)
        assert (folder / "dropkey" / "py.typed").exists()


def test_the_source_archive_holds_what_readme_docs_and_tests_name():
    named = {"constraints.txt", "pyproject.toml"}
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            named.add((page.parent / target).resolve().relative_to(ROOT).parts[0])
    for test in (ROOT / "tests").rglob("*.py"):
        named |= set(re.findall(r'ROOT / "([.\w]+)"', test.read_text()))
    targets = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    archive = targets["sdist"]["include"]
    assert named <= {*archive, "pyproject.toml"}
    assert all((ROOT / name).exists() for name in archive)


def test_planted_faults_still_fit_the_source():
    """Each fault is an edit of a line that exists; whether it is noticed takes minutes, see the slow test."""
    for fault in FAULTS:
        assert fault.right in (ROOT / "src" / "dropkey" / fault.file).read_text(), fault.name
