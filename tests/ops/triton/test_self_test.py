"""At its first use a kind of call is tested against the same written out; what fails does not run."""

import pytest
import torch

import dropkey

CASES = {
    "element": {},
    "column": {},
    "token": {},
    "block": {"grid_size": (5, 8)},
    "cross": {"grid_size": (8, 5)},
}


def reference(tensors, pattern, options):
    query, key, value = (tensor.clone().requires_grad_() for tensor in tensors[:3])
    out = dropkey.attention(query, key, value, pattern=pattern, drop_ratio=0.4, seed=3, backend="reference", **options)
    out.backward(tensors[3])
    return [out.detach(), query.grad, key.grad, value.grad]


def assert_right(answers, tensors, pattern, options):
    want = reference(tensors, pattern, options)
    for answer in answers:
        for got, right in zip(answer, want, strict=True):
            torch.testing.assert_close(got, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pattern", CASES)
def test_a_right_kernel_passes(interpreter, pattern):
    answers, warnings, state, unmoved, tensors = interpreter("self_tested", pattern, **CASES[pattern])
    assert warnings == []
    assert state == f"available; passed its self-test for {pattern}, no bias, float32, D 16"
    assert unmoved
    assert_right(answers, tensors, pattern, CASES[pattern])


@pytest.mark.parametrize("bias", [torch.zeros(40), torch.arange(1600).view(40, 40) % 7 > 1], ids=["float", "bool"])
def test_a_bias_is_part_of_the_kind(interpreter, bias):
    *_, state, _, _ = interpreter("self_tested", "element", attn_bias=bias)
    assert state == f"available; passed its self-test for element, bias {str(bias.dtype)[6:]}, float32, D 16"


@pytest.mark.parametrize("pattern", CASES)
@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("compile error", "they did not run (RuntimeError: ptxas fatal: no such instruction)"),
        ("wrong gradient", "their error in a self-test is gradient of value"),
    ],
)
def test_a_kernel_that_fails_is_not_used(interpreter, pattern, fault, why):
    answers, warnings, state, unmoved, tensors = interpreter("self_tested", pattern, fault, **CASES[pattern])
    assert len(warnings) == 1
    assert f"not used for {pattern}, no bias, float32, D 16: {why}" in warnings[0]
    assert "torch's attention is used instead" in warnings[0]
    assert why in state
    assert unmoved
    assert_right(answers, tensors, pattern, CASES[pattern])


@pytest.mark.parametrize("pattern", ["token", "block", "cross"])
def test_a_mask_that_is_written_wrong_is_not_used(interpreter, pattern):
    answers, warnings, state, _, tensors = interpreter("self_tested", pattern, "wrong mask", **CASES[pattern])
    assert len(warnings) == 1
    assert f"the mask that they write for {pattern} is another one" in state
    assert_right(answers, tensors, pattern, CASES[pattern])


def test_written_masks_are_compared_with_the_pattern(interpreter):
    """The self-test sees a bit that differs: what the kernels write is spoiled here after they wrote it."""
    for pattern in ("token", "block", "cross", "bits"):
        assert interpreter("is_mask_right", pattern)
        assert not interpreter("is_mask_right", pattern, spoiled=True)
