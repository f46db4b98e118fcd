"""bfloat16 attention on emulated tile registers: accuracy, masks, threads, tails of tokens and head dimensions."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fuzz.calls import Call, random_call
from fuzz.judge import judge
from hypothesis import given, settings
from hypothesis import strategies as st

import dropkey
from dropkey.ops.call import Draw
from dropkey.ops.cpu import build, library
from dropkey.ops.cpu.door import PATTERNS as DRAWN
from dropkey.ops.cpu.keep import numbers_of
from dropkey.ops.cpu.operators import mask_operator
from dropkey.patterns import PATTERNS, Geometry

pytestmark = [
    pytest.mark.skipif(library.unavailable() is not None, reason=str(library.unavailable())),
    pytest.mark.filterwarnings("ignore:.*use_reentrant.*"),
]

SIZES = (1, 3, 16, 17, 31, 32, 33, 64, 65, 96, 128)


@pytest.fixture(scope="module")
def emulated():
    return library.Kernel(build.build("emulated-amx"), "emulated-amx")


@pytest.fixture(autouse=True)
def _on_tiles(emulated, monkeypatch):
    monkeypatch.setattr(library, "_load", lambda: emulated)
    assert "emulated" in dropkey.backends()["cpu"]


def normal(*shape, seed=0, dtype=torch.bfloat16):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def run(*tensors, **options):
    """Output and gradients of query, key and value."""
    *operands, grad_out = (tensor.detach().requires_grad_() for tensor in tensors)
    out = dropkey.attention(*operands, backend="cpu", **options)
    return out.detach(), *torch.autograd.grad(out, operands, grad_out.detach())


def check(call, number):
    """The accuracy rule: twice the error of torch's attention in bfloat16 plus two eps."""
    (verdict,) = judge(call, number, ["cpu"])
    assert not verdict.beyond(2), (number, verdict.errors)


def test_every_thread_sets_its_registers_up():
    """In a process of its own, which the emulation ends otherwise; the first test, since all others would end here."""
    script = """
import torch, dropkey
torch.set_num_threads(2)
q = torch.ones(2, 2, 40, 8, dtype=torch.bfloat16, requires_grad=True)
for _ in range(2):
    dropkey.attention(q, q, q, drop_ratio=0.3, backend="cpu").sum().backward()
"""
    environment = {**os.environ, "DROPKEY_CPU_ISA": "emulated-amx", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@settings(max_examples=60)
@given(
    queries=st.sampled_from(SIZES),
    keys=st.sampled_from([*SIZES, 197, 600]),
    dim=st.sampled_from(SIZES),
    value_dim=st.sampled_from(SIZES),
    group=st.sampled_from([1, 1, 2]),
    pattern=st.sampled_from(DRAWN),
    form=st.sampled_from(["none", "bool", "float", "learned"]),
    is_causal=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_accuracy_on_tails_of_all_sizes(queries, keys, dim, value_dim, group, pattern, form, is_causal, seed):
    shapes = (2 * group, queries, dim), (2, keys, dim), (2, keys, value_dim)
    tensors = tuple(normal(2, *shape, seed=seed + n) for n, shape in enumerate(shapes))
    floats = normal(2, 2 * group, queries, keys, seed=3, dtype=torch.float32)
    bias = {"none": None, "bool": floats > -1, "float": floats.masked_fill(floats < -1, -torch.inf), "learned": floats}
    drop = {"drop_ratio": 0.3, "pattern": pattern, "seed": seed, "grid_size": (1, keys), "num_prefix_tokens": 0}
    check(
        Call(tensors, ("",) * 3, bias[form], form == "learned", is_causal, None, drop, "", 1.0, subclass=False),
        number=seed,
    )


@pytest.mark.parametrize(
    ("heads", "queries", "keys", "dim", "value_dim"),
    [
        (2, 197, 197, 64, 64),
        (1, 300, 785, 64, 64),  # several tiles of queries, blocks of keys in the backward pass, and deltas
        (1, 40, 1500, 32, 16),  # several blocks of keys in the forward pass
        (1, 33, 70, 400, 300),  # sums in more pieces than are made ready at once
    ],
)
def test_accuracy_on_larger_shapes(heads, queries, keys, dim, value_dim):
    shapes = (queries, dim), (keys, dim), (keys, value_dim)
    tensors = tuple(normal(1, heads, *shape, seed=n) for n, shape in enumerate(shapes))
    drop = {"drop_ratio": 0.3, "pattern": "element", "seed": 3}
    check(Call(tensors, ("",) * 3, None, False, False, None, drop, "", 1.0, subclass=False), number=0)


def test_random_calls():
    """Layouts, scales, broadcasting, saved-tensor hooks, checkpoints: nothing far off, see tests/fuzz."""
    for number in range(40):
        (verdict,) = judge(random_call(number, dtype=torch.bfloat16, small=True), number, ["cpu"])
        assert not verdict.beyond(16), (number, verdict.errors)


@pytest.mark.parametrize("pattern", DRAWN)
@pytest.mark.parametrize("keys", [16, 17, 65, 97])
def test_masks_bit_for_bit(pattern, keys):
    """The exported mask is the pattern's, and weights are zero just where it is."""
    chosen, eye = PATTERNS[pattern](), torch.eye(keys, dtype=torch.bfloat16).expand(2, 3, keys, keys)
    for seed in (0, -1, 81985529216486895):
        draw = Draw.of(chosen, 0.4, seed, torch.device("cpu"), (1, keys), 0)
        wanted = chosen.keep(draw.seed, draw.drop_ratio, Geometry(2, 3, 33, keys, (1, keys), 0)).expand(2, 3, 33, keys)
        assert torch.equal(mask_operator(2, 3, 33, keys, *numbers_of(draw)), wanted)
        out = dropkey.attention(
            normal(2, 3, 33, 8), normal(2, 3, keys, 8, seed=1), eye, drop_ratio=0.4, pattern=pattern, seed=seed,
            grid_size=(1, keys), backend="cpu",
        )  # fmt: skip
        assert torch.equal(out > 0, wanted | ~wanted.any(-1, keepdim=True))


@pytest.mark.parametrize("tokens", [65, 130])
def test_as_many_threads_same_bits(tokens):
    tensors = [normal(1, 3, tokens, 64, seed=seed) for seed in range(4)]
    results, before = [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(run(*tensors, drop_ratio=0.3, seed=4))
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize(("queries", "keys", "value_dim"), [(1, 40, 64), (40, 600, 35), (40, 600, 300)])
def test_a_lone_key_has_no_gradient_but_its_value_s(queries, keys, value_dim):
    """Delta and the products that it is subtracted from round alike, also where rows are not held whole."""
    q, k = normal(1, 2, queries, 33), normal(1, 2, keys, 33, seed=1)
    v, grad_out = normal(1, 2, keys, value_dim, seed=2), normal(1, 2, queries, value_dim)
    may = torch.arange(keys) == keys // 2
    out, grad_query, grad_key, _ = run(q, k, v, grad_out, attn_bias=may, drop_ratio=0.3, seed=5)
    assert torch.equal(out, v[:, :, keys // 2, None].expand_as(out))
    assert not grad_query.any()
    assert not grad_key.any()


@pytest.mark.slow
def test_float32_is_what_it_is_without_tiles(monkeypatch):
    """The same compiler flags but for the tiles: the same code, so the same bits."""
    tensors = [normal(1, 3, 130, 64, seed=seed, dtype=torch.float32) for seed in range(4)]
    with_tiles = run(*tensors, drop_ratio=0.3, seed=4)
    plain = library.Kernel(build.build("plain"), "plain")
    monkeypatch.setattr(library, "_load", lambda: plain)
    for got, want in zip(with_tiles, run(*tensors, drop_ratio=0.3, seed=4), strict=True):
        assert torch.equal(got, want)


@pytest.mark.slow
def test_all_that_the_kernel_is_tested_for():
    environment = {**os.environ, "DROPKEY_CPU_ISA": "emulated-amx", "PYTHONPATH": os.pathsep.join(sys.path)}
    tests = [
        str(Path(__file__).parent / name) for name in ("test_cpu.py", "test_mixed_attention.py", "test_projected.py")
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
