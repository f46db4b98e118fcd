"""What runs the kernels: a process that interprets them, started once when a test first asks for it, or a GPU."""

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytest.importorskip("triton")
FOLDER = Path(__file__).parent
KERNELS = FOLDER.parents[2] / "src" / "dropkey" / "ops" / "triton"


def _neighbor(name: str) -> ModuleType:
    """Import a file beside this one, under a name that says where it is from."""
    full_name = f"dropkey_triton_tests_{name}"
    if full_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(full_name, FOLDER / f"{name}.py")
        sys.modules[full_name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full_name])
    return sys.modules[full_name]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run whatever runs in the interpreter on a GPU too, with ``-m gpu``."""
    if "interpreter" in metafunc.fixturenames:
        runners = ["interpreted", pytest.param("gpu", marks=pytest.mark.gpu)]
        metafunc.parametrize("interpreter", runners, indirect=True, scope="session")


@pytest.fixture(scope="session")
def interpreter(request: pytest.FixtureRequest) -> Iterator[Callable]:
    """Call a function of ``interpreter_process`` by name."""
    processes = _neighbor("interpreter_process")
    if request.param == "gpu" and not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    process = processes.Gpu() if request.param == "gpu" else processes.Interpreter()
    yield process
    process.close()


@pytest.fixture
def tile(interpreter: Callable) -> Iterator[Callable]:
    """Set the tile of all kernels, for one test."""
    yield lambda *sizes: interpreter("tile", *sizes)
    interpreter("tile")


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
