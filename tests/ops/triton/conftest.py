"""The interpreting process, started once, when a test first asks for it."""

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("triton")
FOLDER = Path(__file__).parent
KERNELS = FOLDER.parents[2] / "src" / "dropkey" / "ops" / "triton"


def _neighbour(name: str) -> ModuleType:
    """Import a file beside this one, under a name that says where it is from."""
    full_name = f"dropkey_triton_tests_{name}"
    if full_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(full_name, FOLDER / f"{name}.py")
        sys.modules[full_name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full_name])
    return sys.modules[full_name]


@pytest.fixture(scope="session")
def interpreter() -> Iterator[Callable]:
    process = _neighbour("interpreter_process").Interpreter()
    yield process
    process.close()


@pytest.fixture
def tile(interpreter: Callable) -> Iterator[Callable]:
    """Set the interpreter's tile, for one test."""
    yield lambda *sizes: interpreter("tile", *sizes)
    interpreter("tile", 32, 32, 4, 1)


@pytest.fixture
def plant(interpreter: Callable, tmp_path: Path) -> Iterator[Callable]:
    """Change the text of the kernels, for one test."""

    def change(name: str, old: str, new: str) -> None:
        folder = Path(shutil.copytree(KERNELS, tmp_path / "triton"))
        text = (folder / name).read_text()
        assert old in text, f"the fault no longer fits {name}"
        (folder / name).write_text(text.replace(old, new))
        interpreter("load", str(folder))

    yield change
    interpreter("load", str(KERNELS))
