"""What the operation promises inside torch.compile, activation checkpointing and tracing without data."""

import subprocess
import sys

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

import dropkey
from dropkey.ops.dispatch import BACKENDS
from dropkey.patterns import PATTERNS

RUNNABLE = [name for name, backend in BACKENDS.items() if backend.unavailable() is None]
GRID = {"grid_size": (2, 4), "num_prefix_tokens": 1}


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def tensors():
    return tuple(torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(s)).requires_grad_() for s in range(3))


@pytest.mark.parametrize("backend", RUNNABLE)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_compiles_once_for_every_ratio(pattern, backend):
    """Ten ratios as tensors, one graph, and each time the mask of that ratio."""
    counter = CompileCounter()

    @torch.compile(fullgraph=True, backend=counter)
    def compiled(q, k, v, ratio):
        return dropkey.attention(q, k, v, drop_ratio=ratio, pattern=pattern, seed=7, backend=backend, **GRID)

    q, k, v = tensors()
    for tenth in range(10):
        ratio = 0.05 + tenth / 11
        got = compiled(q, k, v, torch.tensor(ratio, dtype=torch.float64))
        wanted = dropkey.attention(q, k, v, drop_ratio=ratio, pattern=pattern, seed=7, backend=backend, **GRID)
        torch.testing.assert_close(got, wanted)
    assert counter.frame_count == 1


def test_numbers_as_ratios_compile_a_bounded_number_of_times():
    counter = CompileCounter()
    compiled = torch.compile(lambda q, r: dropkey.attention(q, q, q, drop_ratio=r), fullgraph=True, backend=counter)
    q, _, _ = tensors()
    for tenth in range(10):
        compiled(q, 0.05 + tenth / 11)
    assert counter.frame_count <= 2


@pytest.mark.parametrize("pattern", ["element", "token"])
def test_inductor_gives_the_eager_result_and_gradients(pattern):
    def loss(q, k, v):
        return dropkey.attention(q, k, v, drop_ratio=0.4, pattern=pattern, seed=7).square().sum()

    inputs = tensors()
    eager = torch.autograd.grad(loss(*inputs), inputs)
    compiled = torch.autograd.grad(torch.compile(loss, fullgraph=True)(*inputs), inputs)
    torch.testing.assert_close(compiled, eager)


@pytest.mark.parametrize("compiler", [None, "inductor"])
@pytest.mark.parametrize("backend", ["auto", *RUNNABLE])
def test_checkpointing_draws_the_same_mask_again(compiler, backend):
    """Without a seed: the recomputed forward must use the mask of the first, or value and gradient disagree.

    For the sum of outputs over one-hot values, the gradient of the values shows the weights of the recomputed pass.
    """
    q, k, _ = (t.detach() for t in tensors())
    eye = torch.eye(9).expand(2, 3, 9, 9).clone().requires_grad_()

    def attend(value):
        return dropkey.attention(q, k, value, drop_ratio=0.5, backend=backend)

    def run(value):
        return checkpoint(attend, value, use_reentrant=False)

    run = torch.compile(run, fullgraph=True) if compiler else run
    out = run(eye)
    (grad,) = torch.autograd.grad(out.sum(), eye)
    torch.testing.assert_close(grad.diagonal(dim1=-2, dim2=-1), out.detach().sum(-2))


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("backend", ["reference", "sdpa"])
def test_reads_no_tensor(pattern, backend):
    """Under fake tensors any read of a value on the host, that is any device synchronization, raises."""
    with FakeTensorMode():
        q = torch.empty(2, 3, 9, 8)
        ratio = torch.empty((), dtype=torch.float64)
        out = dropkey.attention(q, q, q, drop_ratio=ratio, pattern=pattern, backend=backend, **GRID)
        assert out.shape == (2, 3, 9, 8)


LENGTHS = """
import sys, torch, torch._dynamo.testing, dropkey

ratio = torch.tensor(0.3, dtype=torch.float64)
for backend in sys.argv[1:]:
    for pattern in ("element", "token"):
        counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")

        def attend(query, ratio):
            return dropkey.attention(query, query, query, drop_ratio=ratio, seed=7, pattern=pattern, backend=backend)

        compiled = torch.compile(attend, fullgraph=True, dynamic=True, backend=counter)
        counts = []
        for length in (9, 10, 33):
            query = torch.randn(2, 3, length, 8)
            torch.testing.assert_close(compiled(query, ratio), attend(query, ratio))
            counts.append(counter.frame_count)
        assert len(set(counts)) == 1, (backend, pattern, counts)
        torch._dynamo.reset()
"""


def test_lengths_that_change_compile_once():
    """Torch compiles up to 8 keys (one draw) and multiples of 8 (nothing is cut off) apart; all others once."""
    command = [sys.executable, "-c", LENGTHS, *RUNNABLE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
