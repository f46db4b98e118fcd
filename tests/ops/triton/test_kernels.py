"""The kernels against the float64 reference with the exported mask, through Triton's interpreter."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

import dropkey
from dropkey.ops.call import AttentionCall
from dropkey.ops.reference import weights

PATTERNS = ("element", "column", "token", dropkey.Block(3), dropkey.Cross(3))
NAMES = ("out", "query", "key", "value")


def inputs(batch=1, heads=2, queries=20, keys=45, dim=16, value_dim=None, kv_heads=None, dtype=torch.float32, seed=0):
    """Return query, key, value and the gradient of the output."""
    generator = torch.Generator().manual_seed(seed)
    kv_heads, value_dim = kv_heads or heads, value_dim or dim
    shapes = [(heads, queries, dim), (kv_heads, keys, dim), (kv_heads, keys, value_dim), (heads, queries, value_dim)]
    return [torch.randn(batch, *shape, generator=generator).to(dtype) for shape in shapes]


def grid(pattern, keys: int, num_prefix_tokens: int = 1) -> dict:
    """Return the grid options of a pattern that needs them."""
    if isinstance(pattern, str):
        return {}
    rows = math.isqrt(keys - num_prefix_tokens)
    while (keys - num_prefix_tokens) % rows:
        rows -= 1
    return {"grid_size": (rows, (keys - num_prefix_tokens) // rows), "num_prefix_tokens": num_prefix_tokens}


def exported(tensors, drop_ratio, pattern="element", seed=None, grid_size=None, num_prefix_tokens=0, **_) -> Tensor:
    query, key = tensors[:2]
    return dropkey.keep_mask(
        *query.shape[:3], key.shape[2], drop_ratio=drop_ratio, pattern=pattern, seed=seed,
        grid_size=grid_size, num_prefix_tokens=num_prefix_tokens,
    )  # fmt: skip


def oracle(tensors, attn_bias=None, is_causal=False, scale=None, **draw) -> list[Tensor]:
    """Return output and gradients in float64, under the exported mask."""
    *leaves, grad_out = (tensor.double().detach() for tensor in tensors)
    query, key, value = (leaf.requires_grad_() for leaf in leaves)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    call = AttentionCall(query, key, value, attn_bias, is_causal, scale, None)
    out = weights(call, exported(tensors, **draw)) @ call.expanded().value
    out.backward(grad_out)
    return [out.detach(), query.grad, key.grad, value.grad]


def plain_torch(interpreter, tensors, attn_bias=None, **options) -> list[Tensor]:
    """Return what torch's attention makes of the same mask at the same dtype, on the same device."""
    if attn_bias is not None:
        attn_bias = attn_bias.expand(*tensors[0].shape[:3], tensors[1].shape[2])
    return interpreter("attend", *tensors, attn_bias=attn_bias, backend="sdpa", **options)


def gradient_rounding(tensors, scale=None) -> dict[str, Tensor]:
    """Return the float32 rounding of the gradients of query and key before they cancel.

    The gradient of a logit is a difference of products of gradient and value. With one key it is 0, and how torch's
    products round on a processor decides whether its own is exactly so.
    """
    query, key, value, grad_out = tensors
    scale = query.shape[-1] ** -0.5 if scale is None else abs(scale)
    value = value.repeat_interleave(query.shape[1] // value.shape[1], dim=1)
    size = 2 * torch.finfo(torch.float32).eps * scale * (grad_out.double() @ value.double().mT).abs().max()
    return {"query": size * key.abs().max(), "key": size * query.abs().max()}


def assert_accurate(interpreter, got, tensors, **options) -> None:
    """Assert an error of at most twice torch's own plus two eps of the largest value; of the logits' if they cancel."""
    want, torchs = oracle(tensors, **options), plain_torch(interpreter, tensors, **options)
    rounding = gradient_rounding(tensors, options.get("scale"))
    for name, a, b, c in zip(NAMES, got, want, torchs, strict=True):
        assert a.dtype == tensors[0].dtype
        error, own = (a.double() - b).abs().max(), (c.double() - b).abs().max()
        allowed = max(2 * own + 2 * torch.finfo(a.dtype).eps * b.abs().max(), rounding.get(name, 0.0))
        assert error <= allowed, f"{name}: error {error:.2e}, allowed {allowed:.2e}"


def check(interpreter, tensors, **options) -> list[Tensor]:
    options = {"drop_ratio": 0.3, "seed": 11, **options}
    got = interpreter("attend", *tensors, **options)
    assert_accurate(interpreter, got, tensors, **options)
    return got


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_every_pattern(interpreter, pattern):
    check(interpreter, inputs(batch=2), pattern=pattern, **grid(pattern, 45))


@pytest.mark.parametrize(("dim", "value_dim"), [(8, 8), (12, 33), (33, 12), (64, 20)])
def test_head_dims(interpreter, dim, value_dim):
    check(interpreter, inputs(dim=dim, value_dim=value_dim))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(interpreter, dtype):
    check(interpreter, inputs(dim=64, dtype=dtype))


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 65), (33, 8), (64, 32)])
def test_lengths(interpreter, queries, keys):
    check(interpreter, inputs(queries=queries, keys=keys))


@pytest.mark.parametrize(("queries", "keys"), [(33, 65), (65, 33)])
def test_causal(interpreter, queries, keys):
    check(interpreter, inputs(queries=queries, keys=keys), is_causal=True)


def test_fewer_key_heads(interpreter):
    check(interpreter, inputs(heads=4, kv_heads=2))


@pytest.mark.parametrize("scale", [-0.7, 3.0])
def test_scale(interpreter, scale):
    check(interpreter, inputs(keys=20), scale=scale)


@pytest.mark.parametrize("shape", [(45,), (2, 1, 1, 45), (2, 20, 1), (2, 2, 20, 45)], ids=str)
def test_float_bias(interpreter, shape):
    bias = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    check(interpreter, inputs(batch=2), attn_bias=bias)


@pytest.mark.parametrize("shape", [(2, 1, 1, 45), (20, 45)], ids=str)
def test_bool_bias(interpreter, shape):
    allowed = torch.rand(shape, generator=torch.Generator().manual_seed(5)) < 0.7
    check(interpreter, inputs(batch=2), attn_bias=allowed)


def test_bias_of_another_dtype(interpreter):
    bias = torch.randn(20, 45).masked_fill(torch.rand(20, 45) < 0.2, torch.finfo(torch.float16).min)
    check(interpreter, inputs(), attn_bias=bias.half(), is_causal=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("scale", [None, 1 / 3, -0.7])
def test_a_row_that_lost_all_keys(interpreter, dtype, scale):
    tensors = inputs(heads=4, keys=3, dtype=dtype)
    keep = exported(tensors, drop_ratio=0.8, seed=11)
    lost = ~keep.any(-1)
    assert lost.any()
    assert not lost.all()
    out, grad_query, grad_key, _ = check(interpreter, tensors, drop_ratio=0.8, scale=scale)
    mean = tensors[2].mean(2, keepdim=True).expand_as(out)
    torch.testing.assert_close(out[lost], mean[lost], **({} if dtype == torch.float32 else {"rtol": 0, "atol": 0.03}))
    assert (grad_query[lost] == 0).all()
    assert grad_key.isfinite().all()


def test_all_rows_lost_pass_nothing_to_query_and_key(interpreter):
    _, grad_query, grad_key, grad_value = check(interpreter, inputs(), drop_ratio=1 - 2**-16)
    assert (grad_query == 0).all()
    assert (grad_key == 0).all()
    assert (grad_value != 0).any()


@pytest.mark.parametrize("forbidding", [False, -torch.inf, torch.finfo(torch.float32).min], ids=str)
def test_forbidden_keys_stay_forbidden(interpreter, forbidding):
    tensors = inputs(keys=12)
    allowed = torch.rand(20, 12, generator=torch.Generator().manual_seed(2)) < 0.3
    allowed[3], allowed[4] = False, False
    allowed[4, 7] = True
    bias = allowed if forbidding is False else torch.where(allowed, 0.5, forbidding)
    out, grad_query, _, grad_value = check(interpreter, tensors, drop_ratio=0.7, attn_bias=bias)
    assert (out[:, :, 3] == 0).all()
    torch.testing.assert_close(out[:, :, 4], tensors[2][:, :, 7])  # its only key, dropped or not
    assert (grad_query[:, :, 3] == 0).all()
    assert (grad_value[:, :, ~allowed.any(0)] == 0).all()


def test_timm_strides_are_taken_and_given(interpreter):
    qkv = torch.randn(2, 21, 3, 2, 12).permute(2, 0, 3, 1, 4)
    tensors = [*qkv.unbind(0), torch.randn(2, 21, 2, 12).transpose(1, 2)]
    check(interpreter, tensors)
    assert interpreter("strides", *tensors[:3], drop_ratio=0.3, seed=1) == (21 * 24, 12, 24, 1)


def test_the_last_axis_may_be_strided(interpreter):
    check(interpreter, [tensor.mT.contiguous().mT for tensor in inputs()])


def test_what_lies_around_a_tensor_is_not_read(interpreter):
    fenced = []
    for tensor in inputs(keys=21, dim=12):
        store = torch.full([size + 2 for size in tensor.shape], torch.nan)
        store[1:-1, 1:-1, 1:-1, 1:-1] = tensor
        fenced.append(store[1:-1, 1:-1, 1:-1, 1:-1])
    check(interpreter, fenced)


def test_no_pair_at_all(interpreter):
    for queries, keys in [(0, 5), (5, 0)]:
        tensors = inputs(queries=queries, keys=keys)
        for got, like in zip(interpreter("attend", *tensors, drop_ratio=0.3), [tensors[3], *tensors[:3]], strict=True):
            torch.testing.assert_close(got, torch.zeros_like(like))


def test_gradients_are_the_same_every_time(interpreter):
    first, second = (interpreter("attend", *inputs(), drop_ratio=0.3, seed=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("sizes", [(16, 64), (64, 32)], ids=str)
def test_other_tiles(interpreter, tile, sizes):
    tile(*sizes, 4, 1)
    check(interpreter, inputs(queries=50, keys=90), is_causal=True)


@pytest.mark.parametrize("design", ["stored", "ahead"])
def test_who_draws_makes_no_difference(interpreter, design):
    tensors, options = inputs(batch=2, queries=40), {"drop_ratio": 0.3, "seed": 3, "is_causal": True}
    got, want = (interpreter("attend", *tensors, design=which, **options) for which in (design, "inline"))
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_without_the_draw_nothing_is_dropped(interpreter):
    tensors = inputs()
    leaves = [tensor.clone().requires_grad_() for tensor in tensors[:3]]
    want = torch.nn.functional.scaled_dot_product_attention(*leaves)
    want.backward(tensors[3])
    got = interpreter("attend", *tensors, design="off", drop_ratio=0.3, seed=3)
    for a, b in zip(got, (want, *(leaf.grad for leaf in leaves)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("drop_ratio", [0.3, 0.5 + 2**-17, 0.5 + 3 * 2**-17])  # halves of a step round to even
def test_a_ratio_that_the_kernels_read(interpreter, pattern, drop_ratio):
    tensors, options = inputs(), {"drop_ratio": drop_ratio, "seed": 3, "pattern": pattern, **grid(pattern, 45)}
    got, want = (interpreter("attend", *tensors, ratio_in_memory=flag, **options) for flag in (True, False))
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_rows_that_lie_far_apart(interpreter):
    """Offsets inside of a tile go beyond 2 ** 31 elements."""
    assert interpreter("far_apart", 2**26 + 64) == 0


def test_a_query_that_sees_one_key_has_no_gradient_but_for_rounding(interpreter):
    tensors = inputs(keys=1)
    out, grad_query, _, grad_value = interpreter("attend", *tensors, drop_ratio=0.5, seed=2)
    assert torch.equal(out, tensors[2].expand_as(out))
    assert grad_query.abs().max() < 1e-5
    torch.testing.assert_close(grad_value, tensors[3].sum(2, keepdim=True))


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pattern=st.sampled_from(PATTERNS), queries=st.integers(16, 80), keys=st.integers(32, 130), dim=st.integers(8, 70),
    value_dim=st.integers(8, 70), group=st.integers(1, 3), is_causal=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]), seed=st.integers(-(2**63), 2**63 - 1),
    drop_ratio=st.floats(0.01, 0.7), bias=st.sampled_from([None, "key", "full"]),
)  # fmt: skip
def test_anything(interpreter, pattern, queries, keys, dim, value_dim, group, is_causal, dtype, seed, drop_ratio, bias):
    # Nothing smaller: the rule compares two largest errors, which are chance where a tensor has a handful of numbers,
    # and gradients of few keys cancel: where a query sees one key, its gradient is 0 and any rounding too much.
    tensors = inputs(1, group, queries, keys, dim, value_dim, 1, dtype)
    attn_bias = None if bias is None else torch.randn(1 if bias == "key" else queries, keys)
    check(
        interpreter, tensors, pattern=pattern, is_causal=is_causal, seed=seed, drop_ratio=drop_ratio,
        attn_bias=attn_bias, **grid(pattern, keys),
    )  # fmt: skip


@pytest.mark.slow
def test_the_widest_heads(interpreter):
    check(interpreter, inputs(dim=256, value_dim=256))
