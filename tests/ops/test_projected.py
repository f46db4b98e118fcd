"""Attention with its linear layers over chosen tokens, against the same formula in float64."""

import pytest
import torch
from torch.nn import functional as F

from dropkey.ops.cpu import library
from dropkey.ops.cpu.projected import attend_projected, why_not_projected
from dropkey.ops.dispatch import refuses_projection
from dropkey.ops.projection import Projection

pytestmark = pytest.mark.skipif(library.unavailable() is not None, reason=str(library.unavailable()))

NAMES = ("x", "weight", "bias", "out_weight", "out_bias")

# batch, tokens, kept tokens, width, heads, head dimension, width of the output
SHAPES = [
    (1, 1, 1, 16, 1, 16, 16),
    (2, 65, 32, 48, 3, 16, 48),
    (3, 50, 7, 80, 2, 48, 112),  # panels that are not full
    (9, 40, 20, 128, 2, 64, 128),  # images enough for every thread to have its own
    (2, 70, 69, 400, 2, 208, 400),  # sums in parts, several tiles of a weight
    (1, 700, 600, 32, 1, 32, 64),  # more keys than are held at once
]


def inputs(shape, seed=0):
    batch, tokens, kept, width, heads, head_dim, out_width = shape
    generator = torch.Generator().manual_seed(seed)
    dim = heads * head_dim
    sizes = ((batch, tokens, width), (3 * dim, width), (3 * dim,), (out_width, dim), (out_width,))
    tensors = [torch.randn(size, generator=generator) for size in sizes]
    tensors[1] *= 2 * width**-0.5
    tensors[3] *= dim**-0.5
    places = torch.stack([torch.randperm(tokens, generator=generator)[:kept] for _ in range(batch)])
    rows = places + tokens * torch.arange(batch)[:, None]
    return [tensor.requires_grad_() for tensor in tensors], rows, heads, head_dim**-0.5


def composed(x, weight, bias, out_weight, out_bias, rows, num_heads, scale):
    """The formula with every key, of which all but the chosen are masked."""
    batch, tokens, _ = x.shape
    query, key, value = F.linear(x, weight, bias).unflatten(2, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)
    has_key = torch.zeros(batch * tokens, dtype=torch.bool).index_fill(0, rows.flatten(), True)
    logits = (query @ key.mT * scale).masked_fill(~has_key.view(batch, 1, 1, tokens), -torch.inf)
    out = (logits.softmax(-1) @ value).transpose(1, 2).flatten(2)
    return F.linear(out, out_weight, out_bias), out


def with_gradients(attend, tensors, *rest):
    y, out = attend(*tensors, *rest)
    wanted = [tensor for tensor in tensors if tensor is not None and tensor.requires_grad]
    grad_y = torch.randn(y.shape, generator=torch.Generator().manual_seed(9)).to(y.dtype)
    return [y.detach(), out.detach(), *torch.autograd.grad(y, wanted, grad_y)]


def doubled(tensors):
    return [None if t is None else t.detach().double().requires_grad_(t.requires_grad) for t in tensors]


def assert_equals_formula(tensors, *rest):
    """No further from the formula than the same formula in float32, twice over."""
    got, same, exact = (
        with_gradients(attend, form(tensors), *rest)
        for attend, form in ((attend_projected, list), (composed, list), (composed, doubled))
    )
    for one, other, want in zip(got, same, exact, strict=True):
        allowed = 2 * (other - want).abs().max() + 4 * torch.finfo(torch.float32).eps * want.abs().max()
        assert (one - want).abs().max() <= allowed


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_formula(shape):
    assert_equals_formula(*inputs(shape))


@pytest.mark.parametrize("absent", [("bias",), ("out_bias",), ("bias", "out_bias")], ids=str)
def test_without_biases(absent):
    tensors, *rest = inputs(SHAPES[1])
    assert_equals_formula([None if n in absent else t for n, t in zip(NAMES, tensors, strict=True)], *rest)


@pytest.mark.parametrize("wanted", [*((name,) for name in NAMES), ("x", "bias"), ("weight", "out_bias")], ids=str)
def test_only_what_is_trained_gets_a_gradient(wanted):
    tensors, *rest = inputs(SHAPES[2])
    for name, tensor in zip(NAMES, tensors, strict=True):
        tensor.requires_grad_(name in wanted)
    assert_equals_formula(tensors, *rest)


def test_strided_tensors():
    tensors, *rest = inputs(SHAPES[1])
    strided = [torch.stack([t.detach(), torch.zeros_like(t)], -1)[..., 0].requires_grad_() for t in tensors]
    assert not any(tensor.is_contiguous() for tensor in strided)
    assert_equals_formula(strided, *rest)


@pytest.mark.parametrize("shape", SHAPES[1:5], ids=str)
def test_same_bits_at_any_number_of_threads(shape):
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3, 7):
            torch.set_num_threads(count)
            results.append(with_gradients(attend_projected, *inputs(shape)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def test_tokens_without_keys_reach_nobody_else():
    tensors, rows, *rest = inputs(SHAPES[1])
    x = tensors[0].detach()
    lost = next(i for i in range(x.shape[1]) if i not in rows[0])
    x[0, lost] = torch.nan
    y, _ = attend_projected(x, *tensors[1:], rows, *rest)
    assert y[0, lost].isnan().all()
    y = y.detach()
    y[0, lost] = 0
    assert y.isfinite().all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_heads": 6}, "multiples of 16"),  # 8 values a head
        ({"x": torch.ones(2, 5, 48, dtype=torch.bfloat16)}, "bfloat16"),
        ({"out_weight": torch.ones(48, 48, dtype=torch.float64)}, "float64"),
        ({"x": torch.ones(0, 5, 48)}, "no tokens"),
        ({"x": torch.ones(2, 5, 48, device="meta")}, "on meta"),
    ],
)
def test_says_why_it_refuses(change, reason):
    layers = Projection(torch.ones(2, 5, 48), torch.ones(144, 48), None, torch.ones(48, 48), None, 3, 0.25)
    assert why_not_projected(layers) is None
    assert reason in why_not_projected(layers._replace(**change))
    assert f"cpu: {why_not_projected(layers._replace(**change))}" in refuses_projection(layers._replace(**change))
    assert refuses_projection(layers, "sdpa") == "sdpa: it runs no linear layers"
