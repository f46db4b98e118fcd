"""The kernel under the address sanitizer: every pattern, bias and shape class, and nothing outside a tensor."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dropkey.ops.cpu import library

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(library.unavailable() is not None, reason=str(library.unavailable())),
]

# Every tensor is a copy of its own, so that the sanitizer's fences lie around each.
CALLS = """
import itertools, sys, torch, dropkey
from dropkey.ops.cpu.door import PATTERNS
torch.set_num_threads(2)
made = []
for dtype, pattern, form, (kv_heads, repeats, queries, keys, dim, value_dim), causal in itertools.product(
    (torch.float32, torch.bfloat16), PATTERNS, ("none", "bool", "learned"),
    ((1, 1, 1, 1, 1, 1), (2, 2, 9, 17, 33, 35), (1, 1, 75, 65, 16, 12), (1, 2, 7, 600, 17, 5)), (False, True),
):
    q, k, v = (torch.randn(2, h, n, d).to(dtype).requires_grad_() for h, n, d in (
        (kv_heads * repeats, queries, dim), (kv_heads, keys, dim), (kv_heads, keys, value_dim)))
    bias = {"none": None, "bool": torch.rand(queries, keys) < 0.7,
            "learned": torch.randn(1, kv_heads * repeats, queries, keys, requires_grad=True)}[form]
    out = dropkey.attention(q, k, v, attn_bias=bias, is_causal=causal, drop_ratio=0.4, pattern=pattern, seed=3,
                            grid_size=(1, keys), backend="cpu")
    out.square().sum().backward()
    made.append(out.isfinite().all())
assert all(made)
print(len(made), "calls")
"""

# Maps mixed over the heads: images of one part and of several, one tile and several, padded heads and keys.
MIXED_CALLS = """
import itertools, torch, dropkey
from dropkey.ops.call import AttentionCall, Draw
from dropkey.ops.dispatch import attend
from dropkey.ops.mixed_attention import attend_mixed, refuses
from dropkey.ops.reattention import GatedHeadMixing, HeadMixing
from dropkey.patterns import PATTERNS
torch.set_num_threads(2)
made = []
for dtype, pattern, cls, training, (batch, heads, queries, keys, dim, value_dim) in itertools.product(
    (torch.float32, torch.bfloat16), (None, "element", "token", "cross"), (HeadMixing, GatedHeadMixing), (False, True),
    ((1, 1, 1, 2, 1, 1), (2, 3, 9, 17, 33, 35), (1, 5, 300, 65, 16, 12), (9, 12, 7, 130, 17, 5)),
):
    q, k, v = (torch.randn(batch, heads, n, d).to(dtype).requires_grad_() for n, d in (
        (queries, dim), (keys, dim), (keys, value_dim)))
    draw = pattern and Draw.of(PATTERNS[pattern](), 0.4, 3, q.device, (1, keys))
    call, mixer = AttentionCall(q, k, v, None, False, 1.0, draw), cls(heads).train(training)
    assert refuses(call, mixer) is None
    out = attend_mixed(call, mixer, plain=attend(call).detach() if cls is GatedHeadMixing else None)
    out.square().sum().backward()
    made.append(out.isfinite().all())
assert all(made)
print(len(made), "calls")
"""

# Projections: panels that are not full, sums in parts, several tiles, with and without what may be left out.
PROJECTED_CALLS = """
import itertools, torch
from dropkey.ops.cpu.projected import attend_projected
torch.set_num_threads(2)
made = []
for (batch, tokens, kept, width, heads, dim, out_width), biased, trained in itertools.product(
    ((1, 1, 1, 16, 1, 16, 16), (3, 50, 7, 80, 2, 48, 112), (2, 70, 69, 400, 2, 208, 400), (1, 700, 600, 32, 1, 32, 64)),
    (False, True), (False, True),
):
    x = torch.randn(batch, tokens, width, requires_grad=True)
    weight, out_weight = torch.randn(3 * heads * dim, width), torch.randn(out_width, heads * dim)
    bias, out_bias = (torch.randn(len(w)) if biased else None for w in (weight, out_weight))
    for tensor in (weight, bias, out_weight, out_bias):
        tensor is not None and tensor.requires_grad_(trained)
    rows = torch.stack([torch.randperm(tokens)[:kept] + tokens * b for b in range(batch)])
    y, _ = attend_projected(x, weight, bias, out_weight, out_bias, rows, heads, dim ** -0.5)
    y.square().sum().backward()
    made.append(y.isfinite().all())
assert all(made)
print(len(made), "calls")
"""

# Random calls and modules, with all that runs around them.
RANDOM_CALLS = """
import torch, warnings
from fuzz.calls import random_call
from fuzz.judge import judge
from fuzz.modules import judge_module
warnings.filterwarnings("ignore", message=".*use_reentrant.*")
torch.set_num_threads(2)
for number in range(600):
    dtype = torch.bfloat16 if number % 4 == 0 else torch.float32
    judge(random_call(number, dtype=dtype, large=number % 10 == 0), number, ["cpu"])
    judge_module(number)
print(number + 1, "calls")
"""

# A planted fault: the values of a problem said to have more keys than their memory, past the door.
FAULT = """
import torch
from dropkey.ops.call import Draw
from dropkey.ops.cpu import door, library
from dropkey.ops.cpu.keep import numbers_of
import dropkey
q, k, v = torch.randn(1, 1, 4, 8), torch.randn(1, 1, 90, 8), torch.randn(1, 1, 60, 8)
numbers = numbers_of(Draw.of(dropkey.Element(), 0.3, 4, q.device))
out, sums = torch.empty_like(q), torch.empty(2, 1, 1, 4)
door.place_of_rows = lambda name, tensor, dtype, shape: (tensor.data_ptr(), *tensor.stride()[:3])
door._sizes = lambda query, key, value: (1, 1, 1, 4, 90, 8, 8)
library.kernel().forward(door.pack(q, k, v, numbers, outputs=(out,), sums=sums))
"""


def _path_of(name, compiler):
    command = [*shlex.split(compiler), f"-print-file-name={name}"]
    return Path(subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip())


def sanitized(script, folder, isa=""):
    """Run a script with a kernel built for the sanitizer, which must be in the process before anything else."""
    compiler = os.environ.get("CXX", "c++")
    runtime = _path_of("libasan.so", compiler)
    if not runtime.is_absolute():
        pytest.skip(f"{compiler} has no libasan")
    environment = {
        **os.environ,
        "CXX": f"{compiler} -fsanitize=address -fno-omit-frame-pointer",
        "DROPKEY_CACHE_DIR": str(folder),
        "DROPKEY_CPU_ISA": isa,
        "LD_PRELOAD": f"{runtime.resolve()} {_path_of('libstdc++.so', compiler).resolve()}",
        "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter's own
        "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[1])]),
    }
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sanitized")


@pytest.mark.parametrize("isa", ["", "emulated-amx"])
def test_every_kind_of_call_stays_inside_its_memory(folder, isa):
    done = sanitized(CALLS, folder, isa)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "240 calls" in done.stdout


def test_every_kind_of_mixed_call_stays_inside_its_memory(folder):
    done = sanitized(MIXED_CALLS, folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "128 calls" in done.stdout


def test_every_kind_of_projected_call_stays_inside_its_memory(folder):
    done = sanitized(PROJECTED_CALLS, folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "16 calls" in done.stdout


@pytest.mark.parametrize("isa", ["", "emulated-amx"])
def test_random_calls_stay_inside_their_memory(folder, isa):
    done = sanitized(RANDOM_CALLS, folder, isa)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "600 calls" in done.stdout


def test_the_sanitizer_sees_a_read_past_the_end(folder):
    done = sanitized(FAULT, folder)
    # Past the end lies either a guard or what was freed before: the sanitizer names one of the two.
    assert "AddressSanitizer: heap-" in done.stderr, done.stderr[-3000:]
