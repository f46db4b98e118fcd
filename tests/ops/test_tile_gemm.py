"""The product on tile registers alone against sums made one by one: on emulated registers, and by AMX's instructions.

Where the processor does not know these, each is decoded when it faults and done on emulated registers.
"""

import ctypes
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dropkey.ops.cpu import build, library

pytestmark = pytest.mark.skipif(library.unavailable() is not None, reason=str(library.unavailable()))

SOURCE = """
#include "tile_gemm.h"
using namespace dropkey;
extern "C" void product(int rows, int columns, long depth, const void* a, long row, long step, const void* b, long ldb,
                        float* c, long ldc, bool add) {
  Tiles mine;
  Ahead none;
  multiply(rows, columns, depth, (const Pair*)a, {row, step, kWhole}, (const Pair*)b, ldb, c, ldc, add, none);
}
extern "C" int refusal() { return ask_for_tiles(); }
extern "C" void without_tiles() { Tile<0>::zero(); }
extern "C" void of_other_shapes() {
  TileShapes shapes;
  shapes.rows[6] = 8;
  configure_tiles(shapes);
  multiply_tiles<0, 0>();
}
"""


INSTRUCTIONS = Path(__file__).parent / "tile_instructions.cpp"
EMULATED, AMX = "-DDROPKEY_EMULATED_TILES", ("-mamx-tile", "-mamx-bf16")


def compiled(made, *flags, source=None):
    """Compile the product alone, which is the work of a second."""
    if source is None:
        source = made.with_suffix(".cpp")
        source.write_text(SOURCE)
    command = [*build._compiler(), "-std=c++17", "-O1", "-fPIC", "-w", *flags, f"-I{build.SOURCE}"]
    done = subprocess.run([*command, str(source), "-o", str(made)], capture_output=True, text=True, check=False)
    return made if done.returncode == 0 else pytest.fail(done.stderr)


def skip_without_amx():
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        pytest.skip("AMX is for x86-64, and the kernel uses it on Linux alone")
    question = [*build._compiler(), *AMX, "-x", "c++", "-fsyntax-only", "/dev/null"]
    if subprocess.run(question, capture_output=True, check=False).returncode:
        pytest.skip("this compiler does not know AMX")


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("tiles") / "product.so", "-shared", EMULATED)


@pytest.fixture(scope="module")
def by_instructions(tmp_path_factory):
    skip_without_amx()
    folder = tmp_path_factory.mktemp("instructions")
    catcher = compiled(folder / "catcher.o", "-c", EMULATED, source=INSTRUCTIONS)
    return compiled(folder / "product.so", "-shared", "-O3", *AMX, str(catcher))


@pytest.fixture(scope="module", params=["emulated", "by_instructions"])
def product(request):
    known = ctypes.CDLL(str(request.getfixturevalue(request.param)))
    pointer, number, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_long
    known.product.argtypes = (number, number, size, pointer, size, size, pointer, size, pointer, size, ctypes.c_bool)

    def caught(*arguments):
        known.catch_instructions()
        known.product(*arguments)
        known.leave_instructions()

    if known.refusal():
        return caught
    # A processor's own sums need not be made in the manual's order.
    known.product.is_exact = request.param == "emulated"
    return known.product


def rounded(values):
    """As bfloat16, by cutting off: still floats, of which the upper halves are left."""
    return (values.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def pairs(even, odd):
    """Cells of two bfloat16 each."""
    return (even.view(np.uint32) >> 16) | odd.view(np.uint32)


def in_manuals_order(a, b, start):
    """Intel's TDPBF16PS over the depth: each 16 pairs summed apart, first and second values apart, all in float32."""
    total = start.copy()
    for first in range(0, a.shape[1], 32):
        sums = [np.zeros_like(total), np.zeros_like(total)]
        for k in range(first, min(first + 32, a.shape[1])):
            sums[k % 2] = sums[k % 2] + a[:, k, None] * b[None, k]
        total = total + (sums[0] + sums[1])
    return total


@settings(max_examples=80)
@given(
    rows=st.one_of(st.integers(1, 70), st.sampled_from([16, 32, 48])),
    tiles_across=st.integers(1, 5),
    depth=st.one_of(st.integers(1, 70), st.integers(120, 300)),
    lies_across=st.booleans(),
    add=st.booleans(),
    gap=st.sampled_from([0, 1, 16]),  # more between rows than the tile that may be read or written too much
)
def test_sums_of_all_sizes_bit_for_bit_with_nothing_read_or_written_outside(
    product, rows, tiles_across, depth, lies_across, add, gap
):
    columns, draw = 16 * tiles_across, np.random.default_rng(rows * 1000 + depth)
    a, b = (rounded(draw.standard_normal(size)) for size in ((rows, 2 * depth), (2 * depth, columns)))
    start = draw.standard_normal((rows, columns)).astype(np.float32)
    left, right = pairs(a[:, ::2], a[:, 1::2]), pairs(b[::2], b[1::2])
    if lies_across:
        left = np.ascontiguousarray(left.T)
    # Behind and below what is read lies NaN, which is in no sum else; what must not be written is infinite, and stays.
    around = (0, 32), (0, 16 + gap)
    left, right = (np.pad(part, around, constant_values=0x7FC07FC0) for part in (left, right))
    out = np.full((rows + 32, columns + 16 + gap), np.inf, np.float32)
    inside = out[:rows, :columns]
    inside[:] = start if add else np.nan
    step = left.shape[1]
    product(
        rows, columns, depth, left.ctypes.data, *((1, step) if lies_across else (step, 1)),
        right.ctypes.data, right.shape[1], out.ctypes.data, out.shape[1], add,
    )  # fmt: skip
    wanted = in_manuals_order(a, b, start if add else np.zeros_like(start))
    tolerance = 0.0 if getattr(product, "is_exact", True) else 1e-5 * (1 + depth)
    assert np.abs(inside - wanted).max() <= tolerance
    assert np.isinf(out).sum() == out.size - wanted.size


def test_denormals_count_as_zero(product):
    """In what is multiplied and in what comes out, whatever the processor's own mode is."""
    tiny, small = np.float32(2.0**-130), np.float32(2.0**-70)
    for left, right in ((tiny, np.float32(2.0**120)), (small, small)):
        a, b = np.full((1, 2), left, np.float32), np.full((2, 16), right, np.float32)
        cells, panel, out = pairs(a[:, ::2], a[:, 1::2]), pairs(b[::2], b[1::2]), np.ones((1, 16), np.float32)
        product(1, 16, 1, cells.ctypes.data, 1, 1, panel.ctypes.data, 16, out.ctypes.data, 16, False)
        assert not out.any()


@pytest.mark.parametrize("entry", ["without_tiles", "of_other_shapes"])
def test_what_a_processor_would_fault_at_ends_the_process(emulated, entry):
    script = f"import ctypes; ctypes.CDLL({str(emulated)!r}).{entry}()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Assertion" in done.stderr


def test_amx_compiles_to_tile_instructions(tmp_path):
    skip_without_amx()
    assembly = compiled(tmp_path / "product.s", "-S", *build.ON_REQUEST["amx"][1]).read_text()
    words = assembly.replace(",", " ").split()
    assert {f"%tmm{n}" for n in range(8)} <= set(words)
    assert words.count("tdpbf16ps") >= 4 + 2 + 2 + 1  # sums of 2 x 2, 2 x 1, 1 x 2 and 1 x 1 tiles
    assert {"ldtilecfg", "tilerelease", "tileloadd", "tilestored", "tilezero"} <= set(words)
