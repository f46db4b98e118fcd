"""The backend as dispatch and torch see it."""

import subprocess
import sys

import pytest
import torch

import dropkey
from dropkey.ops.call import AttentionCall, Draw
from dropkey.ops.triton import Triton, backend
from dropkey.patterns import Block, Element


class Mine(Element):
    """A user's pattern, which no kernel knows."""

    name = "mine"


@pytest.fixture
def _interpreting(monkeypatch):
    monkeypatch.setattr(backend, "IS_INTERPRETING", True)
    monkeypatch.setattr(backend, "IS_TESTING", False)


def call(dtype=torch.float32, dim=8, bias=None, pattern=None) -> AttentionCall:
    query = torch.zeros(1, 2, 5, dim, dtype=dtype)
    draw = Draw.of(pattern or Element(), 0.3, 1, query.device, (1, 5))
    return AttentionCall(query, query, query, bias, False, 1.0, draw)


@pytest.mark.usefixtures("_interpreting")
@pytest.mark.parametrize(
    ("refused", "why"),
    [
        (call(dtype=torch.float64), "not torch.float64"),
        (call(dim=257), "above 256"),
        (call(bias=torch.zeros(5, 5, requires_grad=True)), "needs a gradient"),
        (call(bias=torch.zeros(5, 5, dtype=torch.float64)), "float64"),
        (call(pattern=Mine()), "cannot draw"),
        (call()._replace(draw=None), "nothing is dropped"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_it_cannot_do_it_refuses_with_a_reason(refused, why):
    assert why in Triton().refuses(refused)


@pytest.mark.usefixtures("_interpreting")
def test_what_it_can_do_it_takes():
    assert Triton().refuses(call()) is None
    assert Triton().refuses(call(pattern=Block(3))) is None
    assert Triton().refuses(call(bias=torch.zeros(5, 5, dtype=torch.bool))) is None
    with torch.no_grad():
        assert Triton().refuses(call(bias=torch.zeros(5, 5, requires_grad=True))) is None


def test_tensors_on_the_cpu_are_refused(monkeypatch):
    monkeypatch.setattr(backend, "IS_INTERPRETING", False)
    assert "on 'cpu'" in Triton().refuses(call())


def test_a_machine_without_a_gpu_says_so(monkeypatch):
    monkeypatch.setattr(backend, "IS_INTERPRETING", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert dropkey.backends()["triton"] == "unavailable: torch sees no CUDA or ROCm GPU"
    with pytest.raises(dropkey.BackendError, match="no CUDA or ROCm GPU; use backend='auto'"):
        dropkey.attention(*[torch.zeros(1, 1, 2, 4)] * 3, drop_ratio=0.5, backend="triton")
    monkeypatch.setattr(backend, "IS_INSTALLED", False)
    assert "pip install triton" in dropkey.backends()["triton"]


def test_import_does_not_import_triton():
    code = "import sys, torch; before = set(sys.modules); import dropkey; print('triton' in set(sys.modules) - before)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_a_changing_ratio_does_not_recompile(interpreter):
    query, key, value = torch.randn(3, 1, 2, 10, 8)
    ratios = [0.1, 0.2, 0.3]
    recompiled, answers = interpreter("recompiles", query, key, value, ratios, 7)
    assert recompiled == 0
    for ratio, (out, grad_query) in zip(ratios, answers, strict=True):
        leaf = query.clone().requires_grad_()
        want = dropkey.attention(leaf, key, value, drop_ratio=ratio, seed=7, backend="reference")
        want.square().sum().backward()
        torch.testing.assert_close(out, want)
        torch.testing.assert_close(grad_query, leaf.grad)


def test_operators_keep_torchs_rules(interpreter):
    query, key, value = (torch.randn(1, 2, 9, 8, requires_grad=True) for _ in range(3))
    ratio, seed = torch.tensor(0.3, dtype=torch.float64), torch.tensor(3)
    interpreter("opcheck", "triton_forward", query, key, value, None, None, ratio, seed, "element", False, 0.3, False)
    interpreter("opcheck", "triton_forward", query, key, value, None, None, ratio, seed, "element", False, 0.3, True)
    interpreter("opcheck", "triton_kept_tokens", ratio, seed, 2, 3, 9)
    interpreter("opcheck", "triton_element_bits", ratio, seed, 1, 2, 9, 9)
    interpreter("opcheck", "triton_window_bits", ratio, seed, seed, 1, 2, 9, 9, [3, 3], 3, 3, False)
