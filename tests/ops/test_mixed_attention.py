"""Fused Re-attention against the unfused form in float64: values, gradients, statistics, and what it must not touch."""

import copy

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

import dropkey
from dropkey.bench.memory import peak_bytes
from dropkey.ops.call import AttentionCall, Draw
from dropkey.ops.cpu import door, library
from dropkey.ops.cpu.keep import numbers_of
from dropkey.ops.cpu.mixed_operators import pack_mixing
from dropkey.ops.dispatch import attend
from dropkey.ops.mixed_attention import attend_mixed, refuses
from dropkey.ops.reattention import GatedHeadMixing, HeadMixing
from dropkey.ops.reference import weights
from dropkey.patterns import PATTERNS

pytestmark = pytest.mark.skipif(library.unavailable() is not None, reason=str(library.unavailable()))

GATE = 0.7


def normal(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def inputs(batch, heads, queries, keys, dim, value_dim, dtype=torch.float32):
    """Query, key, value and the gradient of the output."""
    shapes = ((queries, dim), (keys, dim), (keys, value_dim), (queries, value_dim))
    return [normal(batch, heads, *shape, dtype=dtype, seed=seed) for seed, shape in enumerate(shapes)]


def mixing(heads, cls=HeadMixing, training=True):
    """A module whose parameters and statistics are all different from their start."""
    torch.manual_seed(heads)
    module = cls(heads).train(training)
    with torch.no_grad():
        module.norm.weight.normal_()
        module.norm.bias.normal_()
        module.norm.running_mean.normal_(std=0.1)
        module.norm.running_var.uniform_(0.001, 0.1)
        if cls is GatedHeadMixing:
            module.gate.fill_(GATE)
    return module


def unfused(call, mixer, factor=1.0):
    """The formula on whole maps, in the precision of the call."""
    attn = weights(call, call.keep())
    maps = attn + mixer(attn) if isinstance(mixer, GatedHeadMixing) else factor * mixer(attn)
    return maps @ call.value


def fused(call, mixer, factor=1.0):
    assert refuses(call, mixer) is None
    plain = None
    if isinstance(mixer, GatedHeadMixing):
        with torch.no_grad():
            plain = attend(call)
    return attend_mixed(call, mixer, plain=plain, factor=factor)


def run(attention, tensors, mixer, draw=None, **arguments):
    """Output, and gradients of query, key, value and every parameter by name; the statistics of the mixer move."""
    *leaves, grad_out = tensors
    q, k, v = (tensor.detach().requires_grad_() for tensor in leaves)
    call = AttentionCall(q, k, v, None, False, q.shape[-1] ** -0.5, draw)
    out = attention(call, mixer, **arguments)
    wanted = {"query": q, "key": k, "value": v, **dict(mixer.named_parameters())}
    grads = torch.autograd.grad(out, list(wanted.values()), grad_out)
    return {"out": out.detach(), **dict(zip(wanted, grads, strict=True))}


def check(tensors, mixer, draw=None, **arguments):
    """At most twice the error of the unfused form in float32, plus a few roundings of the largest value.

    Batch norm magnifies the rounding of nearly constant maps, in the unfused form too: so that is the measure. The bias
    before a batch norm in training has no gradient: what the unfused form gives there is its rounding. Nearly none have
    maps of a few weights: the largest value is that of a norm whose statistics are held. And the gradient of a factor
    is a sum of products that cancel, with the rounding of all of them.
    """
    wide, single = [t.double() for t in tensors], [t.float() for t in tensors]
    ours = run(fused, tensors, copy.deepcopy(mixer), draw, **arguments)
    theirs = run(unfused, single, copy.deepcopy(mixer), draw, **arguments)
    right = run(unfused, wide, copy.deepcopy(mixer).double(), draw, **arguments)
    held = run(unfused, wide, holding(mixer, wide, draw), draw, **arguments)
    eps = torch.finfo(tensors[0].dtype).eps
    for name, want in right.items():
        error, allowance = ((result[name].double() - want).abs().max() for result in (ours, theirs))
        if name == "theta.bias" and mixer.training:
            assert not ours[name].any()
            continue
        sizes = [want.abs().max(), held[name].abs().max()]
        if name in dict(mixer.named_parameters()):
            sizes.append((wide[-1] * right["out"]).norm())
        largest = torch.stack(sizes).max()
        assert error <= 2 * allowance + 16 * eps * largest, name


def holding(mixer, tensors, draw):
    """The mixer in evaluation, and as running statistics those of this batch if it was training."""
    held = copy.deepcopy(mixer).double()
    if mixer.training:
        held.norm.momentum = 1.0
        run(unfused, tensors, held, draw)
    return held.eval()


def draw_of(pattern, ratio, keys, seed=5):
    if not ratio:
        return None
    return Draw.of(PATTERNS[pattern](), ratio, seed, torch.device("cpu"), (1, keys))


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 4),
    heads=st.integers(1, 12),
    queries=st.sampled_from([1, 2, 7, 31, 65, 80]),
    keys=st.sampled_from([2, 7, 9, 16, 17, 65, 129, 300]),
    dim=st.sampled_from([1, 12, 33, 35, 64]),
    value_dim=st.sampled_from([1, 12, 33, 35, 64]),
    pattern=st.sampled_from(door.PATTERNS),
    ratio=st.sampled_from([0.0, 0.3, 0.9]),
    gated=st.booleans(),
    training=st.booleans(),
)
@example(1, 3, 1, 2, 1, 1, "element", 0.9, True, True)
@example(9, 6, 65, 65, 64, 64, "element", 0.3, True, True)
@example(1, 12, 400, 300, 33, 35, "element", 0.3, True, True)  # several parts of an image, several tiles
def test_accuracy_on_random_shapes(batch, heads, queries, keys, dim, value_dim, pattern, ratio, gated, training):
    mixer = mixing(heads, GatedHeadMixing if gated else HeadMixing, training)
    tensors = inputs(batch, heads, queries, keys, dim, value_dim)
    check(tensors, mixer, draw_of(pattern, ratio, keys), **({} if gated else {"factor": 0.5}))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gated", [True, False])
def test_bfloat16(gated, training):
    mixer = mixing(3, GatedHeadMixing if gated else HeadMixing, training)
    check(inputs(2, 3, 33, 50, 35, 12, torch.bfloat16), mixer, draw_of("element", 0.3, 50))


@pytest.mark.parametrize("training", [True, False])
def test_nearly_constant_maps(training):
    """Their deviations are centered before they are multiplied, so that nothing cancels."""
    tensors = inputs(2, 4, 60, 70, 16, 16)
    tensors[0] *= 0.01
    check(tensors, mixing(4, training=training))


@pytest.mark.parametrize("gated", [True, False])
def test_queries_that_have_lost_all_their_keys(gated):
    """They see all keys alike, in their head, and pass nothing to query and key."""
    tensors, draw = inputs(1, 3, 40, 5, 8, 8), draw_of("element", 0.7, 5)
    lost = ~draw.keep(1, 3, 40, 5).any(-1)
    assert 0 < lost.sum() < lost.numel()
    mixer = mixing(3, GatedHeadMixing if gated else HeadMixing)
    check(tensors, mixer, draw)
    grads = run(fused, tensors, mixer, draw)
    assert not grads["query"][lost].any()
    assert grads["query"][~lost].any()


@pytest.mark.parametrize("ratio", [0.0, 0.3])
@pytest.mark.parametrize("training", [True, False])
def test_the_gate_starts_at_no_change_at_all(training, ratio):
    mixer = mixing(3, GatedHeadMixing, training)
    mixer.gate.data.zero_()
    q, k, v, grad_out = inputs(2, 3, 33, 50, 35, 12)
    call = AttentionCall(q, k, v, None, False, 35**-0.5, draw_of("element", ratio, 50))
    assert torch.equal(fused(call, mixer), attend(call))
    grads = run(fused, (q, k, v, grad_out), mixer, call.draw)
    assert grads["gate"].abs() > 0
    assert not grads["theta.weight"].any()


@pytest.mark.parametrize("momentum", [0.1, 0.5])
def test_running_statistics_are_those_of_torch(momentum):
    ours, theirs = mixing(5), mixing(5).double()
    for mixer in (ours, theirs):
        mixer.norm.momentum = momentum
    tensors = inputs(3, 5, 9, 17, 12, 8)
    for _ in range(2):
        run(fused, tensors, ours)
        run(unfused, [t.double() for t in tensors], theirs)
    for name, buffer in ours.norm.named_buffers():
        torch.testing.assert_close(
            buffer, dict(theirs.norm.named_buffers())[name].to(buffer.dtype), rtol=1e-5, atol=1e-7
        )
    assert ours.norm.num_batches_tracked == 2
    before = {name: buffer.clone() for name, buffer in ours.named_buffers()}
    run(fused, tensors, ours.eval())
    assert all(torch.equal(buffer, before[name]) for name, buffer in ours.named_buffers())


def test_two_forward_passes_before_a_backward_pass():
    """As with torch's own layer, also where the first one was not fused: its graph holds the running statistics."""
    tensors, mixer = inputs(2, 3, 9, 17, 12, 8), mixing(3)
    call = AttentionCall(*tensors[:3], None, False, 1.0, None)
    outs = [unfused(call, mixer), fused(call, mixer), fused(call, mixer)]
    sum(out.sum() for out in outs).backward()
    assert mixer.theta.weight.grad.isfinite().all()


def test_statistics_of_the_batch_in_evaluation_too():
    mixer = mixing(3).eval()
    mixer.norm = nn.BatchNorm2d(3, track_running_stats=False).eval()
    check(inputs(2, 3, 9, 17, 12, 8), mixer)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_a_checkpoint_counts_a_batch_once(use_reentrant):
    plain, kept = mixing(3), mixing(3)
    q, k, v, grad_out = inputs(2, 3, 9, 17, 12, 8)
    results = []
    for mixer, wrap in ((plain, False), (kept, True)):
        leaf = q.clone().requires_grad_()

        def attention(query, mixer=mixer):
            return fused(AttentionCall(query, k, v, None, False, 1.0, None), mixer)

        out = checkpoint(attention, leaf, use_reentrant=use_reentrant) if wrap else attention(leaf)
        out.backward(grad_out)
        results.append([leaf.grad, *mixer.buffers()])
    assert kept.norm.num_batches_tracked == 1
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_as_many_threads_same_bits(batch, dtype):
    """One image is cut into parts, whose gradients of key and value are added in order; three are not."""
    tensors, results, before = inputs(batch, 5, 430, 70, 16, 16, dtype), [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        mixer = mixing(5, GatedHeadMixing)
        results.append([*run(fused, tensors, mixer, draw_of("element", 0.3, 70)).values(), *mixer.buffers()])
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


@pytest.mark.parametrize("dim", [12, 33, 64])
def test_views_give_the_same_bits_as_copies(dim):
    packed = normal(2, 19, 3, 4, dim).permute(2, 0, 3, 1, 4)
    ones, mixer = torch.ones(()).expand(2, 4, 19, dim), mixing(4)
    views = run(fused, (*packed.unbind(0), ones), copy.deepcopy(mixer))
    copies = run(fused, (*(t.contiguous() for t in packed.unbind(0)), ones.contiguous()), mixer)
    assert all(torch.equal(views[name], copies[name]) for name in views)


def fenced(tensor):
    """The tensor inside a larger storage full of NaN, and that storage."""
    batch, heads, tokens, dim = tensor.shape
    storage = torch.full((batch, heads + 2, tokens + 2, dim + 3), torch.nan, dtype=tensor.dtype)
    inside = storage[:, 1:-1, 1:-1, 1:-2]
    inside.copy_(tensor)
    return inside, storage


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("tokens", "dim"), [(2, 1), (9, 33), (65, 35), (17, 64), (450, 12)])
def test_reads_and_writes_nothing_outside(tokens, dim, dtype, training):
    clean, mixer, eps = inputs(1, 2, tokens, tokens, dim, dim, dtype), mixing(2), 1e-5
    q, k, v, grad_out = (fenced(t)[0] for t in clean)
    numbers, sums = numbers_of(draw_of("element", 0.3, tokens)), torch.empty(2, 1, 2, tokens)
    identity = torch.tensor([0.5])
    factors = [
        p.detach().contiguous() for p in (mixer.theta.weight.flatten(1), mixer.norm.weight, mixer.norm.bias, identity)
    ]
    statistics = torch.zeros(2, 2, dtype=torch.float64), torch.full((2,), 0.01, dtype=torch.float64)
    outputs = [fenced(torch.zeros_like(q)) for _ in range(5)]
    (out, _), (mixed, _), *grads = outputs
    factor_grads = [torch.zeros_like(factor) for factor in factors]
    kernel, nothing = library.kernel(), (None,) * 4
    problem = door.pack(q, k, v, numbers, outputs=(out,), sums=sums)
    kernel.mixed_forward(problem, pack_mixing(training, eps, factors, statistics, nothing, q, mixed))
    problem = door.pack(q, k, v, numbers, outputs=(mixed, grad_out, *(g for g, _ in grads)), sums=sums)
    kernel.mixed_backward(problem, pack_mixing(training, eps, factors, statistics, factor_grads, q, mixed))
    for inside, storage in outputs:
        assert inside.isfinite().all()
        assert inside.any()
        assert storage.isnan().sum() == storage.numel() - inside.numel()
    assert all(grad.isfinite().all() for grad in factor_grads)


def test_memory_is_linear_in_the_tokens():
    """What is saved for the backward pass, and the peak of both passes, of which one map alone would take 61 MiB."""
    saved = []
    q, k, v, _ = (t.requires_grad_() for t in inputs(1, 2, 1000, 1000, 8, 8))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        fused(AttentionCall(q, k, v, None, False, 1.0, None), mixing(2))
    assert sum(t.numel() for t in saved) < 1000 * 2 * 40
    peak = peak_bytes("Re-attention, fused", (1, 2, 4000, 8), "float32", 0.3, False)
    assert peak is None or peak < 30 * 2**20


@pytest.mark.parametrize("training", [True, False])
def test_compiles(training):
    q, k, v, grad_out = inputs(2, 3, 9, 17, 12, 8)
    torch._dynamo.reset()
    results = []
    for wrap in (lambda f: f, lambda f: torch.compile(f, fullgraph=True)):
        mixer = mixing(3, GatedHeadMixing, training)
        results.append([*run(wrap(fused_call), (q, k, v, grad_out), mixer).values(), *mixer.buffers()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def fused_call(call, mixer):
    with torch.no_grad():
        plain = attend(call)
    return attend_mixed(call, mixer, plain=plain)


def test_has_no_second_derivative():
    q = normal(1, 2, 3, 4).requires_grad_()
    out = fused(AttentionCall(q, q, q, None, False, 1.0, None), mixing(2))
    (grad,) = torch.autograd.grad(out.sum(), q, create_graph=True)
    with pytest.raises(dropkey.BackendError, match="no second derivative; run it in float64"):
        grad.sum().backward()


def _with(change):
    mixer = mixing(2)
    change(mixer)
    return mixer


@pytest.mark.parametrize(
    ("change", "mixer", "reason"),
    [
        ({"attn_bias": torch.zeros(2, 2)}, mixing(2), "biased"),
        ({"is_causal": True}, mixing(2), "forbidden"),
        ({"key": torch.zeros(2, 1, 4, 8), "value": torch.zeros(2, 1, 4, 8)}, mixing(2), "shared"),
        ({"query": torch.zeros(2, 2, 3, 8).double()}, mixing(2), "float64"),
        ({"query": torch.zeros(2, 2, 3, 8, device="meta")}, mixing(2), "meta"),
        ({"scale": -1.0}, mixing(2), "not positive"),
        ({}, mixing(3), "3 heads, not 2"),
        ({}, HeadMixing(2, "layer"), "LayerNorm"),
        ({}, mixing(2).double(), "not float32"),
        ({}, nn.SyncBatchNorm.convert_sync_batchnorm(mixing(2)), "SyncBatchNorm"),
        ({}, nn.Sequential(mixing(2)), "Sequential"),
        ({}, _with(lambda m: setattr(m.norm, "momentum", None)), "momentum=None"),
        ({}, _with(lambda m: parametrize.register_parametrization(m.theta, "weight", nn.Tanh())), "theta is a"),
        ({}, _with(lambda m: m.register_forward_hook(print)), "listens"),
        ({}, _with(lambda m: m.theta.register_forward_pre_hook(print)), "listens"),
        ({}, _with(lambda m: setattr(m, "forward", m.forward)), "replaced"),
    ],
)
def test_says_why_it_refuses(change, mixer, reason):
    q, k = torch.zeros(2, 2, 3, 8), torch.zeros(2, 2, 4, 8)
    call = AttentionCall(q, k, k, None, False, 1.0, None)
    assert refuses(call, mixing(2)) is None
    assert reason in refuses(call._replace(**change), mixer)


def test_a_batch_of_one_weight_is_left_to_torch():
    q = torch.zeros(1, 2, 1, 8)
    assert "variance" in refuses(AttentionCall(q, q, q, None, False, 1.0, None), mixing(2))
