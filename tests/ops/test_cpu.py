"""The native kernel against the float64 reference: shapes, strides, biases, patterns, and what it must not touch."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import dropkey
from dropkey.ops.call import AttentionCall, Draw
from dropkey.ops.cpu import door, library
from dropkey.ops.cpu.backend import Cpu
from dropkey.ops.cpu.keep import numbers_of
from dropkey.ops.cpu.operators import mask_operator
from dropkey.ops.dispatch import attend_kept, select
from dropkey.patterns import PATTERNS, Geometry

pytestmark = pytest.mark.skipif(library.unavailable() is not None, reason=str(library.unavailable()))

BIASES = ("none", "bool", "padding", "float", "float over heads", "float of queries", "learned")


def normal(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def bias_of(form, batch, heads, queries, keys, dtype):
    """A bias of each kind; some rows of the first image have no key at all."""
    may = torch.rand(batch, 1, queries, keys, generator=torch.Generator().manual_seed(1)) < 0.7
    may[0, :, : queries // 3] = False
    padding = torch.arange(keys).expand(batch, 1, 1, keys) < torch.arange(keys, keys - batch, -1).view(batch, 1, 1, 1)
    return {
        "none": None,
        "bool": may,
        "padding": padding,
        "float": normal(batch, heads, queries, keys, dtype=dtype).masked_fill(~may, -torch.inf),
        "float over heads": normal(batch, 1, queries, keys).masked_fill(~may, torch.finfo(torch.float32).min),
        "float of queries": normal(queries, 1, dtype=dtype),
        "learned": normal(1, heads, queries, keys, dtype=dtype),
    }[form]


def run(backend, q, k, v, grad_out, bias, **arguments):
    """Output and gradients; the gradient of the bias where it is learned."""
    q, k, v = (t.detach().requires_grad_() for t in (q, k, v))
    learned = bias is not None and bias.requires_grad
    bias = bias.detach().requires_grad_() if learned else bias
    out = dropkey.attention(q, k, v, attn_bias=bias, backend=backend, **arguments)
    wanted = (q, k, v, bias) if learned else (q, k, v)
    return out.detach(), *torch.autograd.grad(out, wanted, grad_out)


def wide(tensor):
    """In float64, the smallest number of a narrower type still forbidding."""
    if tensor is None or tensor.dtype == torch.bool:
        return tensor
    exact = tensor.detach().double()
    if tensor.dim() and (tensor <= torch.finfo(tensor.dtype).min).any():
        exact = exact.masked_fill(tensor <= torch.finfo(tensor.dtype).min, -torch.inf)
    return exact.requires_grad_(tensor.requires_grad)


def check(q, k, v, bias=None, is_causal=False, **drop):
    """The accuracy rule: at most twice torch's own error at that dtype plus two eps of the largest value.

    One class has no such value: a bias that is the same for all keys has a gradient that is identically zero, a sum of
    numbers that cancel. There the largest number that may be summed stands in for it.
    """
    grad_out = normal(*q.shape[:3], v.shape[3], dtype=q.dtype, seed=9)
    arguments = {"is_causal": is_causal, **drop}
    ours = run("cpu", q, k, v, grad_out, bias, **arguments)
    theirs = run("sdpa", q, k, v, grad_out, bias, **arguments)
    exact = run("reference", wide(q), wide(k), wide(v), grad_out.double(), wide(bias), **arguments)
    for name, got, sdpa, want in zip(("out", "dq", "dk", "dv", "dbias"), ours, theirs, exact, strict=False):
        assert got.dtype == (bias.dtype if name == "dbias" else q.dtype)
        assert got.isfinite().all(), name
        error, allowance = ((t.double() - want).abs().max() for t in (got, sdpa))
        largest = want.abs().max()
        if name == "dbias" and bias.shape[-1] == 1:
            largest = grad_out.norm(dim=-1).max() * v.norm(dim=-1).max()
        assert error <= 2 * allowance + 2 * torch.finfo(got.dtype).eps * largest, name


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    kv_heads=st.integers(1, 3),
    repeats=st.sampled_from([1, 1, 2]),
    queries=st.sampled_from([1, 2, 7, 8, 9, 31, 65, 80]),
    keys=st.sampled_from([1, 2, 7, 8, 9, 16, 17, 65, 129, 600, 1030]),
    dim=st.sampled_from([1, 12, 16, 33, 35, 64, 72, 96]),
    value_dim=st.sampled_from([1, 12, 32, 33, 35, 64, 72]),
    pattern=st.sampled_from(door.PATTERNS),
    ratio=st.sampled_from([0.01, 0.3, 0.7, 0.99]),
    form=st.sampled_from(BIASES),
    is_causal=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 2**64 - 1),
)
@example(1, 1, 1, 1, 1, 1, 1, "element", 0.99, "none", False, torch.float32, 1)
@example(2, 3, 2, 65, 9, 33, 35, "column", 0.99, "bool", True, torch.bfloat16, 1)
def test_accuracy_on_random_shapes(
    batch, kv_heads, repeats, queries, keys, dim, value_dim, pattern, ratio, form, is_causal, dtype, seed
):
    heads = kv_heads * repeats
    q = normal(batch, heads, queries, dim, dtype=dtype, seed=2)
    k = normal(batch, kv_heads, keys, dim, dtype=dtype, seed=3)
    v = normal(batch, kv_heads, keys, value_dim, dtype=dtype, seed=4)
    bias = bias_of(form, batch, heads, queries, keys, dtype)
    if form == "learned":
        bias.requires_grad_()
    drop = {"drop_ratio": ratio, "pattern": pattern, "seed": seed, "grid_size": (1, keys)}
    check(q, k, v, bias, is_causal, **drop)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("queries", "keys", "value_dim"), [(1, 1, 1), (5, 1, 72), (1, 40, 64), (1, 600, 35)])
def test_a_lone_key_has_no_gradient_but_its_value_s(queries, keys, value_dim, dtype):
    q, k = normal(2, 3, queries, 33, dtype=dtype), normal(2, 3, keys, 33, dtype=dtype, seed=1)
    v, grad_out = normal(2, 3, keys, value_dim, dtype=dtype, seed=2), normal(2, 3, queries, value_dim, dtype=dtype)
    may = torch.arange(keys) == keys // 2
    out, grad_query, grad_key, _ = run("cpu", q, k, v, grad_out, may, drop_ratio=0.3, seed=5)
    assert torch.equal(out, v[:, :, keys // 2, None].expand_as(out))
    assert not grad_query.any()
    assert not grad_key.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("batch", "heads", "queries", "keys", "dim", "value_dim"),
    [
        (2, 3, 197, 197, 64, 64),
        (1, 2, 785, 785, 64, 64),  # several tiles of queries, several blocks of keys in the backward pass
        (1, 1, 40, 1500, 32, 16),  # several blocks of keys in the forward pass
        (1, 2, 50, 70, 256, 256),
        (1, 1, 300, 3, 256, 8),
        (1, 1, 3, 4200, 8, 8),  # rows of bits longer than the kernel makes ready at once
        (1, 2, 70, 66, 40, 24),  # two keys past the last whole vector
    ],
)
def test_accuracy_on_larger_shapes(batch, heads, queries, keys, dim, value_dim, dtype):
    q = normal(batch, heads, queries, dim, dtype=dtype)
    k = normal(batch, heads, keys, dim, dtype=dtype, seed=1)
    v = normal(batch, heads, keys, value_dim, dtype=dtype, seed=2)
    check(q, k, v, drop_ratio=0.3, seed=3)


@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (2, 3, 1, 1), (1, 1, 5, 1), (2, 1, 1, 17), (17,), (5, 17)])
def test_gradient_of_a_learned_bias_in_every_broadcast_form(shape):
    q, k, v = normal(2, 2, 5, 8), normal(2, 2, 17, 8, seed=1), normal(2, 2, 17, 8, seed=2)
    if len(shape) == 4:
        shape = tuple(min(have, want) for have, want in zip(shape, (2, 2, 5, 17), strict=True))
    bias = normal(*shape, seed=3).requires_grad_()
    check(q, k, v, bias, drop_ratio=0.4, seed=5)


def test_gradient_of_a_learned_bias_with_grouped_heads():
    q, k, v = normal(2, 4, 5, 8), normal(2, 2, 17, 8, seed=1), normal(2, 2, 17, 8, seed=2)
    check(q, k, v, normal(1, 4, 5, 17).requires_grad_(), drop_ratio=0.4, seed=5)


def test_logits_that_grow_from_block_to_block():
    """The running maximum rises late, and rows whose first blocks are forbidden start late."""
    q, k, v = normal(1, 1, 8, 4), normal(1, 1, 2500, 4, seed=1), normal(1, 1, 2500, 4, seed=2)
    bias = torch.linspace(-60, 0, 2500).expand(1, 1, 8, 2500).clone()
    bias[..., :4, :1800] = -torch.inf
    check(q, k, v, bias, drop_ratio=0.5, seed=3)


@pytest.mark.parametrize("pattern", door.PATTERNS)
@pytest.mark.parametrize("ratio", [0.01, 0.3, 0.99, 1 - 1e-9])
@pytest.mark.parametrize(
    ("queries", "grid", "prefix"), [(1, (1, 1), 0), (3, (1, 7), 0), (9, (2, 4), 1), (65, (8, 8), 1), (5, (14, 14), 17)]
)
def test_masks_are_the_patterns_bit_for_bit(pattern, ratio, queries, grid, prefix):
    chosen = PATTERNS[pattern]()
    keys = grid[0] * grid[1] + prefix
    for seed in (0, -1, 2**63 - 1, 81985529216486895):
        draw = Draw.of(chosen, ratio, seed, torch.device("cpu"), grid, prefix)
        wanted = chosen.keep(draw.seed, draw.drop_ratio, Geometry(2, 3, queries, keys, grid, prefix))
        got = mask_operator(2, 3, queries, keys, *numbers_of(draw))
        assert torch.equal(got, wanted.expand_as(got))


@pytest.mark.parametrize("window_size", [1, 3, 5, 31])
@pytest.mark.parametrize("pattern", [dropkey.Block, dropkey.Cross])
def test_windows_of_every_size(pattern, window_size):
    chosen = pattern(window_size=window_size)
    draw = Draw.of(chosen, 0.4, 5, torch.device("cpu"), (9, 13), 2)
    wanted = chosen.keep(draw.seed, draw.drop_ratio, Geometry(1, 2, 7, 119, (9, 13), 2))
    assert torch.equal(mask_operator(1, 2, 7, 119, *numbers_of(draw)), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", ["none", "learned"])
def test_as_many_threads_same_bits(form, dtype):
    shape = (1, 3, 130, 64)
    q, k, v = (normal(*shape, dtype=dtype, seed=s) for s in range(3))
    bias = bias_of(form, 1, 3, 130, 130, dtype)
    bias = bias if bias is None else bias[:, :1].clone().requires_grad_()
    results, before = [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(run("cpu", q, k, v, q, bias, drop_ratio=0.3, seed=4))
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dim", [12, 33, 64])
def test_views_give_the_same_bits_as_copies(dim, dtype):
    """timm's unbound projection, transposed heads, an expanded gradient, and a last dimension that is not dense."""
    packed = normal(2, 19, 3, 4, dim, dtype=dtype).permute(2, 0, 3, 1, 4)
    q, k, v = packed.unbind(0)
    sparse = torch.stack([q, q], dim=-1)[..., 0]
    ones = torch.ones((), dtype=dtype).expand_as(q)
    copies = run("cpu", *(t.contiguous() for t in (q, k, v)), ones.contiguous(), None, drop_ratio=0.3, seed=4)
    for views in ((q, k, v), (sparse, k, v)):
        got = run("cpu", *views, ones, None, drop_ratio=0.3, seed=4)
        assert all(torch.equal(a, b) for a, b in zip(got, copies, strict=True))


def test_joining_the_heads_copies_nothing():
    q = normal(2, 5, 3, 8).transpose(1, 2)
    out = dropkey.attention(q, q, q, drop_ratio=0.3, backend="cpu")
    assert out.transpose(1, 2).is_contiguous()


def fenced(tensor):
    """The tensor inside a larger storage full of NaN, and that storage."""
    batch, heads, tokens, dim = tensor.shape
    storage = torch.full((batch, heads + 2, tokens + 2, dim + 3), torch.nan, dtype=tensor.dtype)
    inside = storage[:, 1:-1, 1:-1, 1:-2]
    inside.copy_(tensor)
    return inside, storage


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("tokens", "dim"), [(1, 1), (9, 33), (65, 35), (17, 64), (785, 12)])
def test_reads_and_writes_nothing_outside(tokens, dim, dtype):
    clean = [normal(1, 2, tokens, dim, dtype=dtype, seed=s) for s in range(4)]
    wanted = run("cpu", *clean, None, drop_ratio=0.3, seed=4)
    (q, _), (k, _), (v, _), (grad_out, _) = (fenced(t) for t in clean)
    outputs = [fenced(torch.zeros_like(q)) for _ in range(4)]
    (out, _), *grads = outputs
    sums = torch.empty(2, 1, 2, tokens)
    numbers = numbers_of(Draw.of(dropkey.Element(), 0.3, 4, q.device))
    scale = dim**-0.5
    kernel = library.kernel()
    kernel.forward(door.pack(q, k, v, numbers, scale=scale, outputs=(out,), sums=sums))
    all_outputs = (out, grad_out, *(inside for inside, _ in grads))
    kernel.backward(door.pack(q, k, v, numbers, scale=scale, outputs=all_outputs, sums=sums))
    for (got, storage), want in zip(outputs, wanted, strict=True):
        assert torch.equal(got, want)
        assert storage.isnan().sum() == storage.numel() - got.numel()


def test_memory_is_linear_in_the_tokens():
    """What the operation saves for its backward pass, in bytes per token, whatever the number of tokens."""
    saved = []
    q, k, v = (normal(1, 1, 1000, 8, seed=s).requires_grad_() for s in range(3))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        dropkey.attention(q, k, v, drop_ratio=0.3, backend="cpu")
    assert sum(t.numel() for t in saved) < 1000 * 40


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("queries", "keys"), [(7, 1), (65, 33), (9, 100), (3, 600)])
def test_keys_chosen_beforehand(queries, keys, dtype):
    """Nothing is drawn, so torch's own attention in float64 is the truth."""
    q, grad_out = normal(2, 3, queries, 40, dtype=dtype), normal(2, 3, queries, 24, dtype=dtype, seed=3)
    k, v = normal(2, 3, keys, 40, dtype=dtype, seed=1), normal(2, 3, keys, 24, dtype=dtype, seed=2)

    def result(attend, *tensors):
        tensors = [t.detach().requires_grad_() for t in tensors]
        out = attend(*tensors)
        return out.detach(), *torch.autograd.grad(out, tensors, grad_out.to(out.dtype))

    def ours(*tensors):
        call = AttentionCall(*tensors, None, False, 40**-0.5, None)
        assert select(call, "auto").name == "cpu"
        return attend_kept(call)

    theirs = torch.nn.functional.scaled_dot_product_attention
    results = zip(result(ours, q, k, v), result(theirs, q, k, v), result(theirs, *map(wide, (q, k, v))), strict=True)
    for got, torchs, want in results:
        allowance = 2 * (torchs.double() - want).abs().max() + 2 * torch.finfo(dtype).eps * want.abs().max()
        assert (got.double() - want).abs().max() <= allowance


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"query": torch.zeros(1, 1, 2, 4).half()}, "float16"),
        ({"query": torch.zeros(1, 1, 2, 4).double()}, "float64"),
        ({"query": torch.zeros(1, 1, 0, 4)}, "empty"),
        ({"scale": -1.0}, "not positive"),
        ({"scale": math.nan}, "not positive"),
    ],
)
def test_says_why_it_refuses(change, reason):
    q = torch.zeros(1, 1, 2, 4)
    call = AttentionCall(q, q, q, None, False, 1.0, Draw.of(dropkey.Element(), 0.3, 1, q.device))
    assert Cpu().refuses(call) is None
    assert reason in Cpu().refuses(call._replace(**change))


def test_has_no_second_derivative():
    q = normal(1, 1, 3, 4).requires_grad_()
    out = dropkey.attention(q, q, q, drop_ratio=0.3, backend="cpu")
    (grad,) = torch.autograd.grad(out.sum(), q, create_graph=True)
    with pytest.raises(dropkey.BackendError, match="no second derivative"):
        grad.sum().backward()


def test_auto_takes_it():
    q = normal(1, 1, 3, 4)
    call = AttentionCall(q, q, q, None, False, 1.0, Draw.of(dropkey.Element(), 0.3, 1, q.device))
    assert select(call, "auto").name == "cpu"
    assert dropkey.backends()["cpu"].startswith(f"available; instruction set {library.kernel().isa}")
    ours, auto = (dropkey.attention(q, q, q, drop_ratio=0.3, seed=1, backend=b) for b in ("cpu", "auto"))
    assert torch.equal(ours, auto)
