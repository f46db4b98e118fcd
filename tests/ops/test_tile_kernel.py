"""``tile_kernel.cpp``, which compares whole libraries where there is no Python, does so and can fail."""

import platform
import subprocess
from pathlib import Path

import pytest

from dropkey.ops.cpu import build, library

pytestmark = [
    pytest.mark.skipif(library.unavailable() is not None, reason=str(library.unavailable())),
    pytest.mark.skipif(platform.system() != "Linux", reason="it can be the first process of Linux alone"),
]

SOURCE = Path(__file__).parent / "tile_kernel.cpp"


@pytest.fixture(scope="module")
def compare(tmp_path_factory):
    program = tmp_path_factory.mktemp("tiles") / "tile_kernel"
    command = [*build._compiler(), "-std=c++17", "-O1", "-w", f"-I{build.SOURCE}"]
    command += [str(SOURCE), "-o", str(program), "-ldl", "-pthread"]
    subprocess.run(command, check=True)
    paths = {"emulated": str(build.build("emulated-amx")), "usual": str(build.build(library.kernel().isa))}

    def call(*names):
        return subprocess.run([str(program), *map(paths.get, names)], capture_output=True, text=True, check=False)

    return call


def test_emulated_tiles_give_nearly_what_the_usual_kernel_gives(compare):
    done = compare("emulated", "emulated", "usual")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok\n") == 19
    assert "19 cases, 0 wrong" in done.stdout


def test_other_bits_are_wrong(compare):
    done = compare("emulated", "usual", "usual")
    assert done.stdout.count("OTHER BITS") == done.stdout.count("WRONG") == done.returncode > 10
