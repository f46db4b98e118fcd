"""The operation on every backend, against the float64 oracle: outputs, gradients, corners, and what it promises."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import attention as oracle
from torch.nn.functional import scaled_dot_product_attention

import dropkey
from dropkey.ops.backend import Backend
from dropkey.ops.dispatch import BACKENDS
from dropkey.patterns import PATTERNS

RUNNABLE = [name for name, backend in BACKENDS.items() if backend.unavailable() is None]
every_backend = pytest.mark.parametrize("backend", RUNNABLE)


def tensors(batch=2, heads=3, kv_heads=None, queries=5, keys=9, dim=8, value_dim=None, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    kv_heads = kv_heads or heads
    return (
        normal(batch, heads, queries, dim),
        normal(batch, kv_heads, keys, dim),
        normal(batch, kv_heads, keys, value_dim or dim),
    )


def mask_of(query, key, **drop):
    shape = (query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    return dropkey.keep_mask(*shape, **drop).numpy()


def expected(query, key, value, keep, grad_out, allowed=None, bias=None, scale=None):
    """Output and gradients of the oracle, key heads repeated and their gradients summed back."""
    repeats = query.shape[1] // key.shape[1]
    q, k, v = (x.detach().double().numpy() for x in (query, key, value))
    k, v = (np.repeat(x, repeats, axis=1) for x in (k, v))
    out, _ = oracle.attention(q, k, v, keep, allowed, bias, scale)
    grads = oracle.gradients(q, k, v, keep, grad_out.double().numpy(), allowed, bias, scale)

    def fold(x):
        return x.reshape(x.shape[0], -1, repeats, *x.shape[2:]).sum(2)

    return out, grads[0], fold(grads[1]), fold(grads[2]), grads[3]


def run(query, key, value, grad_out, **arguments):
    out = dropkey.attention(query, key, value, **arguments)
    return out.detach(), *torch.autograd.grad(out, (query, key, value), grad_out.to(out.dtype))


def assert_close(actual, wanted, tolerance):
    for name, got, want in zip(("out", "dq", "dk", "dv"), actual, wanted, strict=False):
        assert np.isfinite(got.double().numpy()).all(), name
        np.testing.assert_allclose(got.double().numpy(), want, rtol=tolerance, atol=tolerance, err_msg=name)


def skip_unless_it_takes(backend, dtype):
    if backend == "cpu" and dtype == torch.float16:
        pytest.skip("cpu has no float16")


def tolerance_of(backend):
    """float64 where the backend has it, float32 rounding where it does not."""
    return (torch.float64, 1e-10) if backend in ("reference", "sdpa") else (torch.float32, 2e-5)


@every_backend
@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=6, deadline=None)
@given(
    batch=st.integers(1, 3),
    kv_heads=st.integers(1, 2),
    repeats=st.integers(1, 2),
    queries=st.integers(1, 12),
    keys=st.sampled_from([1, 2, 7, 8, 9, 16, 17]),
    dim=st.sampled_from([1, 8, 12, 33]),
    value_dim=st.sampled_from([5, 8, 35]),
    ratio=st.sampled_from([0.01, 0.3, 0.7, 0.99]),
    seed=st.integers(0, 2**64 - 1),
)
def test_equals_the_oracle(backend, pattern, batch, kv_heads, repeats, queries, keys, dim, value_dim, ratio, seed):
    dtype, tolerance = tolerance_of(backend)
    q, k, v = tensors(batch, kv_heads * repeats, kv_heads, queries, keys, dim, value_dim, dtype)
    grad_out = torch.randn(*q.shape[:3], value_dim, dtype=dtype, generator=torch.Generator().manual_seed(1))
    drop = {"drop_ratio": ratio, "pattern": pattern, "seed": seed, "grid_size": (1, keys)}
    wanted = expected(q, k, v, mask_of(q, k, **drop), grad_out)
    assert_close(run(q, k, v, grad_out, backend=backend, **drop), wanted, tolerance)


def biases(batch=2, heads=3, queries=5, keys=9):
    """(name, bias, allowed): every kind and broadcast form; query 0 of image 0 has no key at all where it says so."""
    generator = torch.Generator().manual_seed(2)
    full = torch.randn(batch, heads, queries, keys, generator=generator, dtype=torch.float64)
    may = torch.rand(batch, 1, queries, keys, generator=generator) < 0.7
    may[0, :, 0] = False
    padding = torch.ones(batch, 1, 1, keys, dtype=torch.bool)
    padding[0, ..., 4:] = False
    gone = padding.clone()
    gone[1] = False
    smallest = torch.finfo(torch.float64).min
    return {
        "bool, some rows empty": may,
        "bool padding": padding,
        "bool padding of all keys": gone,
        "bool (Nq, Nk)": may[1, 0],
        "float full": full,
        "float over heads": full[:1],
        "float (Nq, Nk)": full[0, 0],
        "float with -inf": torch.where(may, full, -torch.inf),
        "float with smallest number": torch.where(may, full, smallest),
        "float padding of all keys": torch.where(gone, 0.0, -torch.inf).double(),
    }


@every_backend
@pytest.mark.parametrize("ratio", [0.3, 0.97])
@pytest.mark.parametrize("form", biases())
def test_forbidden_keys_and_biases(backend, form, ratio):
    dtype, tolerance = tolerance_of(backend)
    q, k, v = tensors(dtype=dtype)
    bias = biases()[form]
    shape = (2, 3, 5, 9)
    if bias.dtype == torch.bool:
        allowed, added, given_bias = bias.expand(shape).numpy(), None, bias
    else:
        given_bias = torch.where(bias <= torch.finfo(bias.dtype).min, torch.finfo(dtype).min, bias).to(dtype)
        if "inf" in form or "all keys" in form:
            given_bias = torch.where(bias.isinf(), -torch.inf, given_bias)
        allowed = (~(given_bias <= torch.finfo(dtype).min)).expand(shape).numpy()
        added = np.where(allowed, given_bias.expand(shape).double().numpy(), 0)
    drop = {"drop_ratio": ratio, "seed": 3}
    grad_out = torch.randn(2, 3, 5, 8, dtype=dtype)
    wanted = expected(q, k, v, mask_of(q, k, **drop), grad_out, allowed, added)
    assert_close(run(q, k, v, grad_out, attn_bias=given_bias, backend=backend, **drop), wanted, tolerance)


@every_backend
@pytest.mark.parametrize("with_bias", [False, True])
def test_causal_and_scale(backend, with_bias):
    dtype, tolerance = tolerance_of(backend)
    q, k, v = tensors(queries=6, keys=9, dtype=dtype)
    bias = torch.randn(2, 1, 6, 9, dtype=dtype) if with_bias else None
    drop = {"drop_ratio": 0.5, "seed": 3}
    grad_out = torch.randn(2, 3, 6, 8, dtype=dtype)
    allowed = np.broadcast_to(np.tri(6, 9, dtype=bool), (2, 3, 6, 9))
    added = None if bias is None else bias.expand(2, 3, 6, 9).double().numpy()
    wanted = expected(q, k, v, mask_of(q, k, **drop), grad_out, allowed, added, scale=0.2)
    got = run(q, k, v, grad_out, attn_bias=bias, is_causal=True, scale=0.2, backend=backend, **drop)
    assert_close(got, wanted, tolerance)


@every_backend
@pytest.mark.parametrize("shape", [(2, 3, 5, 9), (1, 3, 5, 9), (3, 1, 9), (5, 9), (2, 1, 1, 9)])
def test_learned_bias_gets_its_gradient(backend, shape):
    dtype, tolerance = tolerance_of(backend)
    q, k, v = tensors(dtype=dtype)
    bias = torch.randn(shape, dtype=dtype).requires_grad_()
    drop = {"drop_ratio": 0.6, "seed": 3}
    refusal = BACKENDS[backend].refuses(
        dropkey.ops.call.AttentionCall(
            q, k, v, bias, False, 1.0, dropkey.ops.call.Draw.of(dropkey.Element(), 0.6, 3, q.device)
        )
    )
    if refusal:  # then auto hands the call to a backend that returns it
        with pytest.raises(dropkey.BackendError, match="bias"):
            dropkey.attention(q, k, v, attn_bias=bias, backend=backend, **drop)
        backend = "auto"
    grad_out = torch.randn(2, 3, 5, 8, dtype=dtype)
    out = dropkey.attention(q, k, v, attn_bias=bias, backend=backend, **drop)
    (grad,) = torch.autograd.grad(out, bias, grad_out)
    full = bias.detach().expand(2, 3, 5, 9).double().numpy()
    grad_logits = expected(q, k, v, mask_of(q, k, **drop), grad_out, bias=full)[4]
    wanted = torch.from_numpy(grad_logits).sum_to_size(shape)
    np.testing.assert_allclose(grad.double(), wanted, rtol=tolerance, atol=10 * tolerance)


@every_backend
def test_a_row_that_loses_all_keys_is_the_mean_of_the_allowed_values(backend):
    q, k, v = tensors(queries=64, keys=3, dtype=torch.float32)
    drop = {"drop_ratio": 0.9, "seed": 1}
    empty = ~torch.from_numpy(mask_of(q, k, **drop)).any(-1)
    assert empty.any()
    assert not empty.all()
    bias = torch.tensor([0.0, 5.0, -torch.inf])  # a bias must not tilt the uniform weights
    out = dropkey.attention(q, k, v, attn_bias=bias.expand(1, 1, 64, 3), backend=backend, **drop)
    lost = ~torch.from_numpy(mask_of(q, k, **drop))[..., :2].any(-1)
    mean = v[:, :, :2].mean(2, keepdim=True).expand(-1, -1, 64, -1)
    torch.testing.assert_close(out[lost], mean[lost])
    grads = torch.autograd.grad(out[lost].sum(), (q, k, v))
    assert grads[0].abs().max() == 0
    assert grads[1].abs().max() == 0
    assert grads[2].abs().max() > 0


@every_backend
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_accuracy_rule(backend, dtype):
    """Error against float64: at most twice torch's own at that dtype plus two eps of the largest value."""
    skip_unless_it_takes(backend, dtype)
    q, k, v = tensors(2, 3, None, 33, 65, 64, None, dtype, seed=4)
    drop = {"drop_ratio": 0.3, "seed": 5}
    keep = mask_of(q, k, **drop)
    grad_out = torch.randn(2, 3, 33, 64, generator=torch.Generator().manual_seed(6)).to(dtype)
    wanted = expected(q, k, v, keep, grad_out)
    ours = run(q, k, v, grad_out, backend=backend, **drop)
    out = scaled_dot_product_attention(q, k, v, attn_mask=torch.from_numpy(keep))
    theirs = (out.detach(), *torch.autograd.grad(out, (q, k, v), grad_out))
    for name, got, sdpa, want in zip(("out", "dq", "dk", "dv"), ours, theirs, wanted, strict=False):
        assert got.dtype == dtype
        error, allowance = (np.abs(x.double().numpy() - want).max() for x in (got, sdpa))
        assert error <= 2 * allowance + 2 * torch.finfo(dtype).eps * np.abs(want).max(), name


@every_backend
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("ratio", [0.3, 0.95])
def test_half_precision_never_gives_nan(backend, dtype, ratio):
    """Large logits, forbidden keys and empty rows at once: where an added -1e12 overflows."""
    skip_unless_it_takes(backend, dtype)
    q, k, v = (50 * t.detach() for t in tensors(2, 3, None, 65, 9, 16, None, dtype))
    for tensor in (q, k, v):
        tensor.requires_grad_()
    bias = torch.zeros(2, 1, 1, 9, dtype=dtype)
    bias[0, ..., 3:] = torch.finfo(dtype).min
    bias[1] = -torch.inf
    got = run(q, k, v, torch.ones(2, 3, 65, 16), drop_ratio=ratio, seed=1, attn_bias=bias, backend=backend)
    assert all(t.isfinite().all() for t in got)
    assert (got[0][1] == 0).all()


@every_backend
@pytest.mark.parametrize("keys", [20, 600])
def test_what_is_not_a_number_shows(backend, keys):
    """A diverged query or key must not come out as zeros. Torch's own adds a mask: there a dropped key shows too."""
    q, k, v = (t.detach() for t in tensors(queries=40, keys=keys, dim=16, dtype=torch.float32))
    drop = {"drop_ratio": 0.5, "seed": 1}
    q[0, 1, 3, 2] = k[1, 2, 7, 5] = torch.nan
    out = dropkey.attention(q, k, v, **drop, backend=backend)
    lost = torch.zeros(out.shape[:3], dtype=torch.bool)
    lost[0, 1, 3] = True
    lost[1, 2] = dropkey.keep_mask(2, 3, 40, keys, **drop)[1, 2, :, 7]
    assert out[lost].isnan().all()
    if backend != "sdpa":
        assert out[~lost].isfinite().all()


@every_backend
def test_ratio_zero_is_torchs_own_call(backend):
    q, k, v = tensors(dtype=torch.float32)
    bias = torch.randn(2, 1, 5, 9)
    assert torch.equal(dropkey.attention(q, k, v), scaled_dot_product_attention(q, k, v))
    if backend != "reference":
        got = dropkey.attention(q, k, v, drop_ratio=0.0, attn_bias=bias, scale=0.3, backend=backend)
        assert torch.equal(got, scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=0.3))


@every_backend
def test_kept_weights_sum_to_one(backend):
    q, k, _ = tensors(dtype=torch.float32)
    ones = torch.ones(2, 3, 9, 1)
    out = dropkey.attention(q, k, ones, drop_ratio=0.5, seed=1, backend=backend)
    torch.testing.assert_close(out, torch.ones_like(out))


@every_backend
@pytest.mark.parametrize("pattern", PATTERNS)
def test_backends_agree_on_the_mask(pattern, backend):
    """Values that are one-hot show which keys a query saw: the same on every backend."""
    q, k, _ = tensors(dtype=torch.float32)
    eye = torch.eye(9).expand(2, 3, 9, 9)
    drop = {"drop_ratio": 0.5, "seed": 12, "pattern": pattern, "grid_size": (2, 4), "num_prefix_tokens": 1}
    keep = torch.from_numpy(mask_of(q, k, **drop))
    keep |= ~keep.any(-1, keepdim=True)
    assert ((dropkey.attention(q, k, eye, backend=backend, **drop) > 0) == keep).all()


def test_without_a_seed_it_follows_torchs_generator():
    q, k, v = tensors()
    outs = []
    for state in (1, 1, 2):
        torch.manual_seed(state)
        outs += [dropkey.attention(q, k, v, drop_ratio=0.4), dropkey.attention(q, k, v, drop_ratio=0.4)]
    assert torch.equal(outs[0], outs[2])
    assert torch.equal(outs[1], outs[3])
    assert not torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[4])


@every_backend
def test_gradients_of_the_tangent(backend):
    """torch's own finite differences, through a fixed mask."""
    if tolerance_of(backend)[0] != torch.float64:
        pytest.skip(f"{backend} has no float64")
    q, k, v = tensors(1, 2, None, 3, 4, 3)
    assert torch.autograd.gradcheck(
        lambda *qkv: dropkey.attention(*qkv, drop_ratio=0.4, seed=3, backend=backend), (q, k, v), nondet_tol=0
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": torch.zeros(3, 5, 8)}, r"query must be \(batch, heads, tokens, head_dim\), got shape \(3, 5, 8\)"),
        ({"key": torch.zeros(2, 3, 9, 7)}, "do not fit"),
        ({"value": torch.zeros(2, 3, 8, 8)}, "do not fit"),
        ({"key": torch.zeros(2, 2, 9, 8), "value": torch.zeros(2, 2, 9, 8)}, "3 query heads are not a multiple of 2"),
        ({"key": torch.zeros(2, 3, 9, 8, dtype=torch.float64)}, "must be of one floating type"),
        ({"query": torch.zeros(2, 3, 5, 8, dtype=torch.int64)}, "query must be of a floating type"),
        ({"attn_bias": torch.zeros(2, 3, 5, 8)}, "does not broadcast"),
        ({"attn_bias": torch.zeros(2, 3, 5, 9, dtype=torch.int64)}, "must be bool"),
        ({"attn_bias": torch.zeros(1, 2, 3, 5, 9)}, "does not broadcast"),
        ({"drop_ratio": 1.5}, "drop_ratio must be in"),
        ({"pattern": "columns"}, "did you mean 'column'"),
        ({"pattern": "block"}, "needs grid_size"),
        ({"backend": "spda"}, "did you mean 'sdpa'"),
    ],
)
def test_bad_arguments(change, message):
    arguments = {"query": torch.zeros(2, 3, 5, 8), "key": torch.zeros(2, 3, 9, 8), "value": torch.zeros(2, 3, 9, 8)}
    with pytest.raises(ValueError, match=message) as caught:
        dropkey.attention(**{**arguments, "drop_ratio": 0.3, **change})
    assert isinstance(caught.value, dropkey.DropKeyError)


def test_backends_say_what_works():
    known = dropkey.backends()
    assert known["reference"] == known["sdpa"] == "available"
    assert all(re.match(r"available(; .+)?$|unavailable: .+", state) for state in known.values())


def test_a_named_backend_that_cannot_run_says_why(monkeypatch):
    class Broken(Backend):
        name = "broken"

        def unavailable(self):
            return "no such machine"

        def refuses(self, call):
            return None

        def attend(self, call):
            raise AssertionError

    monkeypatch.setitem(BACKENDS, "broken", Broken())
    q, k, v = tensors()
    with pytest.raises(RuntimeError, match="'broken' cannot run this call: no such machine") as caught:
        dropkey.attention(q, k, v, drop_ratio=0.3, backend="broken")
    assert isinstance(caught.value, dropkey.DropKeyError)
    assert dropkey.backends()["broken"] == "unavailable: no such machine"
    dropkey.attention(q, k, v, drop_ratio=0.3)  # auto passes it by


@pytest.mark.parametrize("backend", ["reference", "sdpa", "cpu"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_default_device_does_not_matter(backend, pattern):
    if not dropkey.backends()[backend].startswith("available"):
        pytest.skip(dropkey.backends()[backend])
    q, k, v = torch.randn(3, 2, 3, 9, 8)
    arguments = {"drop_ratio": 0.4, "pattern": pattern, "seed": 5, "grid_size": (3, 3), "backend": backend}
    want = dropkey.attention(q, k, v, **arguments)
    with torch.device("meta"):
        got = dropkey.attention(q, k, v, **arguments)
        drawn = dropkey.attention(q, k, v, **{**arguments, "seed": None})
    assert torch.equal(got, want)
    assert drawn.device.type == "cpu"
