"""What broke attention libraries and this one: memory, silent wrong numbers, ordinary use that failed. Kind by kind."""

import contextlib
import copy
import math
import types

import numpy as np
import pytest
import torch
from conftest import tiny_vit
from fuzz.modules import LOOPS, Sliced
from oracles.attention import gradients_at_once
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.nn import functional as F
from torch.nn.attention.bias import causal_lower_right, causal_upper_left
from torch.utils.checkpoint import checkpoint

import dropkey
from dropkey.adapters import class_swap, token_selection
from dropkey.adapters.listeners import recording
from dropkey.adapters.site import site_of
from dropkey.ops.call import AttentionCall
from dropkey.ops.cpu import library
from dropkey.ops.cpu.projected import attend_projected
from dropkey.ops.dispatch import BACKENDS
from dropkey.ops.mixed_attention import refuses
from dropkey.patterns import PATTERNS

RUNNABLE = [name for name, backend in BACKENDS.items() if backend.unavailable() is None]
every_backend = pytest.mark.parametrize("backend", RUNNABLE)
every_pattern = pytest.mark.parametrize("pattern", PATTERNS)
native = pytest.mark.skipif(library.unavailable() is not None, reason=str(library.unavailable()))


@dropkey.register
class Attend(nn.Module):
    """Whatever it is given, to torch's attention."""

    def forward(self, query, key, value, mask=None, **options):
        return F.scaled_dot_product_attention(query, key, value, mask, **options)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def one_line(error):
    return "\n" not in str(error.value)


def oracle(query, key, value, keep, mask=None, scale=None, grad_out=None):
    """Output and gradients in float64 with everything expanded, gradients summed back to what was given."""
    batch, heads, queries, _ = keep.shape
    whole = [t.double().repeat_interleave(max(heads // t.shape[1], 1), 1) for t in (query, key, value)]
    whole = [t.expand(batch, heads, -1, -1).numpy() for t in whole]
    mask = torch.zeros(keep.shape) if mask is None else mask.expand(keep.shape)
    may = mask if mask.dtype == torch.bool else ~(mask <= -5000)
    bias = 0.0 if mask.dtype == torch.bool else mask.double().where(may, 0).numpy()
    grad_out = np.ones((batch, heads, queries, value.shape[3])) if grad_out is None else grad_out.double().numpy()
    scale = query.shape[3] ** -0.5 if scale is None else scale
    out, *grads, _, grad_scale = gradients_at_once(*whole, keep.numpy(), may.numpy(), grad_out, bias, scale)
    found = []
    for grad, tensor in zip(grads, (query, key, value), strict=True):
        folded = torch.from_numpy(grad).unflatten(1, (tensor.shape[1], -1)).sum(2)
        found.append(folded.sum_to_size(tensor.shape))
    return torch.from_numpy(out), *found, torch.tensor(grad_scale)


# 1. Broadcasting, and what torch refuses.

BROADCASTS = {
    "key and value batch 1": ((2, 3, 4, 8), (1, 3, 5, 8), (1, 3, 5, 8)),
    "value batch 1": ((2, 3, 4, 8), (2, 3, 5, 8), (1, 3, 5, 8)),
    "query batch 1": ((1, 3, 4, 8), (16, 3, 50, 8), (16, 3, 50, 8)),
    "query heads 1": ((2, 1, 4, 8), (2, 3, 5, 8), (2, 3, 5, 8)),
    "key heads 1": ((2, 3, 4, 8), (2, 1, 5, 8), (2, 3, 5, 8)),
    "value heads 1": ((2, 3, 4, 8), (2, 3, 5, 8), (2, 1, 5, 7)),
    "all of it": ((1, 3, 4, 8), (2, 1, 5, 8), (1, 1, 5, 8)),
    "grouped": ((2, 4, 4, 8), (2, 2, 5, 8), (2, 2, 5, 8)),
    "grouped unlike": ((2, 4, 4, 8), (1, 1, 5, 8), (2, 2, 5, 8)),
    "grouped unlike each other": ((2, 6, 4, 8), (2, 2, 5, 8), (2, 3, 5, 8)),
}


@every_backend
@pytest.mark.parametrize("case", BROADCASTS)
@pytest.mark.parametrize("through_site", [True, False])
def test_broadcasts_as_torch_does(case, backend, through_site):
    tensors = [normal(*shape, seed=n).requires_grad_() for n, shape in enumerate(BROADCASTS[case])]
    options = {"enable_gqa": True} if "grouped" in case else {}
    plain = F.scaled_dot_product_attention(*tensors, **options)
    if through_site:
        module = Attend().train()
        dropkey.apply(module, dropkey.DropKey(0.4, schedule="constant"), backend=backend)
        with recording([module]) as (records,):
            out = module(*tensors, **options)
        seed = int(records[0].call.draw.seed)
    else:
        out = dropkey.attention(*tensors, drop_ratio=0.4, seed=(seed := 5), backend=backend)
    assert out.shape == plain.shape
    keep = dropkey.keep_mask(*out.shape[:3], tensors[1].shape[2], drop_ratio=0.4, seed=seed)
    grad_out = normal(*out.shape, seed=7)
    wanted = oracle(*(t.detach() for t in tensors), keep, grad_out=grad_out)
    for got, want in zip((out, *torch.autograd.grad(out, tensors, grad_out)), wanted[:4], strict=True):
        torch.testing.assert_close(got.double(), want, rtol=2e-5, atol=2e-5)


Q, K, V = (2, 3, 4, 8), (2, 3, 5, 8), (2, 3, 5, 8)
REFUSED = {
    "fewer values": (Q, K, (2, 3, 3, 8)),
    "more values": (Q, K, (2, 3, 7, 8)),
    "wide keys": (Q, (2, 3, 5, 16), V),
    "narrow keys": (Q, (2, 3, 5, 4), V),
    "other heads": (Q, (2, 2, 5, 8), (2, 2, 5, 8)),
    "fewer batches": ((4, 3, 4, 8), K, V),
    "more batches": (Q, (3, 3, 5, 8), (3, 3, 5, 8)),
    "one axis too many": (Q, (1, *K), (1, *V)),
    "too few": (Q, (8,), V),
    "no batch": (Q, (0, 3, 5, 8), (0, 3, 5, 8)),
}
MASKS = {
    "too few keys": torch.zeros(4, 3),
    "too many keys": torch.zeros(4, 7),
    "other batch": torch.zeros(3, 1, 4, 5),
    "five axes": torch.zeros(1, 2, 3, 4, 5),
    "integers": torch.ones(4, 5, dtype=torch.int64),
    "complex": torch.zeros(4, 5, dtype=torch.complex64),
    "causal of another length": causal_upper_left(3, 5),
    "elsewhere": torch.zeros(4, 5, device="meta"),
    "no tensor": "causal",
    "sparse": torch.eye(4, 5).to_sparse(),
}


@pytest.mark.parametrize("backend", ["auto", *RUNNABLE])
@pytest.mark.parametrize("case", [*REFUSED, *MASKS])
def test_what_torch_refuses_is_one_clear_error(case, backend):
    query, key, value = (normal(*shape) for shape in REFUSED.get(case, (Q, K, V)))
    mask = MASKS.get(case)
    with pytest.raises(dropkey.ArgumentError) as of_call:
        dropkey.attention(query, key, value, attn_bias=mask, drop_ratio=0.4, backend=backend)
    assert one_line(of_call)
    if isinstance(mask, str):  # torch itself says so before anybody is asked
        return
    module = Attend().train()
    dropkey.apply(module, dropkey.DropKey(0.4, schedule="constant"), backend=backend)
    with pytest.raises(dropkey.SiteError, match="the model itself") as of_site:
        module(query, key, value, mask)
    assert one_line(of_site)


def test_grouped_heads_need_to_be_asked_for_at_a_site():
    module = Attend().train()
    dropkey.apply(module, dropkey.DropKey(0.4, schedule="constant"))
    with pytest.raises(dropkey.SiteError, match="enable_gqa"):
        module(normal(2, 4, 4, 8), normal(2, 2, 5, 8), normal(2, 2, 5, 8))


def operator_calls():
    """Calls of the native operators that would read or write outside of a tensor."""
    q, k, v = (normal(*shape) for shape in (Q, K, V))
    ratio, seed, zero = torch.tensor(0.4, dtype=torch.float64), torch.tensor(7), torch.tensor(0)
    element, block = [0, 0, 0, 0, 0], [3, 3, 1, 5, 0]
    forward = torch.ops.dropkey.cpu_attention
    yield "value tokens", lambda: forward(q, k, v[:, :, :3], None, 1.0, False, ratio, seed, zero, element)
    yield "key width", lambda: forward(q, k[..., :4], v, None, 1.0, False, ratio, seed, zero, element)
    yield "batch", lambda: forward(q, k[:1], v[:1], None, 1.0, False, ratio, seed, zero, element)
    yield "heads", lambda: forward(q, k[:, :2], v[:, :2], None, 1.0, False, ratio, seed, zero, element)
    yield "axes", lambda: forward(q[0], k, v, None, 1.0, False, ratio, seed, zero, element)
    yield "type", lambda: forward(q.double(), k.double(), v.double(), None, 1.0, False, ratio, seed, zero, element)
    yield "types", lambda: forward(q, k.bfloat16(), v, None, 1.0, False, ratio, seed, zero, element)
    yield "nothing", lambda: forward(q[:0], k[:0], v[:0], None, 1.0, False, ratio, seed, zero, element)
    yield "bias", lambda: forward(q, k, v, torch.zeros(4, 3), 1.0, False, ratio, seed, zero, element)
    yield "pattern", lambda: forward(q, k, v, None, 1.0, False, ratio, seed, zero, [9, 0, 0, 0, 0])
    yield "numbers", lambda: forward(q, k, v, None, 1.0, False, ratio, seed, zero, [0])
    yield "ratio type", lambda: forward(q, k, v, None, 1.0, False, ratio.float(), seed, zero, element)
    yield "ratio", lambda: forward(q, k, v, None, 1.0, False, ratio - 3, seed, zero, [2, 0, 0, 0, 0])
    yield "no ratio", lambda: forward(q, k, v, None, 1.0, False, ratio * math.nan, seed, zero, [2, 0, 0, 0, 0])
    yield "seed type", lambda: forward(q, k, v, None, 1.0, False, ratio, seed.int(), zero, element)
    yield "seeds", lambda: forward(q, k, v, None, 1.0, False, ratio, seed.expand(2), zero, element)
    yield "grid", lambda: forward(q, k, v, None, 1.0, False, ratio, seed, zero, [3, 3, 9, 9, 0])
    yield "window", lambda: forward(q, k, v, None, 1.0, False, ratio, seed, zero, [3, 2, 1, 5, 0])
    yield "prefix", lambda: forward(q, k, v, None, 1.0, False, ratio, seed, zero, [4, 3, 1, 6, -1])
    yield "threshold", lambda: forward(q, k, v, None, 1.0, False, ratio, seed, ratio, block)
    out, sums = forward(q, k, v, None, 1.0, False, ratio, seed, zero, element)
    backward, rest = torch.ops.dropkey.cpu_attention_backward, (False, 1.0, False, ratio, seed, zero, element)
    yield "gradient", lambda: backward(out[:, :, :2], q, k, v, None, out, sums, *rest)
    yield "gradient type", lambda: backward(out.double(), q, k, v, None, out, sums, *rest)
    yield "other out", lambda: backward(out, q, k, v, None, out[..., :3], sums, *rest)
    yield "other sums", lambda: backward(out, q, k, v, None, out, sums[..., :2], *rest)
    yield "gaps in sums", lambda: backward(out, q, k, v, None, out, sums.mT.contiguous().mT, *rest)
    yield "mask grid", lambda: torch.ops.dropkey.cpu_keep_mask(2, 3, 4, 5, ratio, seed, zero, [3, 3, 4, 4, 0])
    yield "no mask", lambda: torch.ops.dropkey.cpu_keep_mask(-2, 3, 4, 5, ratio, seed, zero, element)
    mixed, theta = torch.ops.dropkey.cpu_mixed_attention, torch.eye(3)
    vector = torch.ones(3)
    draw = (1e-5, 1.0, ratio, seed, zero, element)
    yield "theta", lambda: mixed(q, k, v, None, torch.eye(2), vector, vector, None, None, *draw)
    yield "gain", lambda: mixed(q, k, v, None, theta, vector[:2], vector, None, None, *draw)
    yield "mixed heads", lambda: mixed(q, k[:, :1], v[:, :1], None, theta, vector, vector, None, None, *draw)
    yield "plain", lambda: mixed(q, k, v, out[:1], theta, vector, vector, vector[:1], None, *draw)
    yield "identity alone", lambda: mixed(q, k, v, None, theta, vector, vector, vector[:1], None, *draw)
    x, weight, out_weight = normal(2, 5, 16), normal(96, 16), normal(16, 32)
    rows = torch.arange(6).view(2, 3)
    yield "rows", lambda: attend_projected(x, weight, None, out_weight, None, rows + 7, 2, 1.0)
    yield "row type", lambda: attend_projected(x, weight, None, out_weight, None, rows.int(), 2, 1.0)
    yield "weight", lambda: attend_projected(x, weight[:90], None, out_weight, None, rows, 2, 1.0)
    yield "odd heads", lambda: attend_projected(x, weight, None, out_weight, None, rows, 3, 1.0)
    yield "linear bias", lambda: attend_projected(x, weight, normal(3), out_weight, None, rows, 2, 1.0)
    yield "weight elsewhere", lambda: attend_projected(x, weight.to("meta"), None, out_weight, None, rows, 2, 1.0)


@native
@pytest.mark.parametrize("name", [name for name, _ in operator_calls()] if library.unavailable() is None else [])
def test_the_door_to_native_code_is_shut(name):
    call = dict(operator_calls())[name]
    with pytest.raises((dropkey.DropKeyError, RuntimeError)) as error:
        call()
    # Torch itself refuses sizes below 0 before anything of ours runs.
    assert isinstance(error.value, dropkey.BackendError) or name == "no mask"
    assert one_line(error)


@native
def test_no_transform_reaches_native_code():
    q = normal(*Q)
    ratio, seed = torch.tensor(0.4, dtype=torch.float64), torch.tensor(7)
    for operator in (torch.ops.dropkey.cpu_attention,):
        with pytest.raises(dropkey.BackendError, match=r"torch\.func"):
            torch.func.grad(
                lambda x, run=operator: run(x, x, x, None, 1.0, False, ratio, seed, seed, [0] * 5)[0].sum()
            )(q)


# 2. Fast paths: only where nothing that they skip could be anything else.


def shift(layer):
    layer.forward = types.MethodType(lambda self, x: nn.Linear.forward(self, x) + 1, layer)


def double_weight(layer):
    class Twice(nn.Module):
        def forward(self, weight):
            return 2 * weight

    nn.utils.parametrize.register_parametrization(layer, "weight", Twice())


class Wrapped(torch.Tensor):
    """A weight that is something else than numbers in memory, as quantization and sharding libraries have them."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=inner.device)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        bare = torch.utils._pytree.tree_map(lambda x: x.inner if isinstance(x, Wrapped) else x, (args, kwargs or {}))
        out = func(*bare[0], **bare[1])
        return Wrapped(out) if func is torch.ops.aten.detach.default else out


def wrap(layer):
    layer.weight = nn.Parameter(Wrapped(layer.weight.detach()), requires_grad=False)


def load_late(layer):
    """Weights on meta until a hook brings them, as offloading does."""
    weights = {name: p.detach().clone() for name, p in layer.named_parameters()}
    layer.to("meta")

    def load(module, args):
        for name, value in weights.items():
            setattr(module, name, nn.Parameter(value))

    layer.register_forward_pre_hook(load)


def frozen_hook(layer):
    layer.register_forward_hook(lambda module, args, out: out * 1.5)


def none(layer):
    pass


CHANGES = (none, shift, double_weight, wrap, load_late, frozen_hook)


@pytest.mark.parametrize("layer", ["qkv", "proj", "k_norm", "q_norm", "attn_drop", "proj_drop"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_token_skips_nothing_that_acts(layer, change, images, monkeypatch):
    if layer not in ("qkv", "proj") and change not in (none, frozen_hook):
        pytest.skip("no weights")
    results = []
    for masks in (False, True):
        model = tiny_vit(depth=1)
        attention = model.blocks[0].attn
        attention.fused_attn = layer != "attn_drop"
        change(getattr(attention, layer))
        dropkey.apply(model, dropkey.DropKey(0.4, schedule="constant", pattern="token"))
        if masks:
            monkeypatch.setattr(class_swap, "forward_selected", lambda *_, **__: None)
        torch.manual_seed(3)
        results.append(model(images))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


@contextlib.contextmanager
def heard_globally(seen):
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(type(module)))
    yield
    handle.remove()


@contextlib.contextmanager
def heard_in_the_class(seen):
    forward = nn.Linear.forward
    nn.Linear.forward = lambda self, x: (seen.append(nn.Linear), forward(self, x))[1]
    yield
    nn.Linear.forward = forward


@pytest.mark.parametrize("listening", [heard_globally, heard_in_the_class])
def test_whoever_listens_to_all_modules_hears_all_of_them(listening, images):
    model = tiny_vit(depth=2)
    dropkey.apply(model, dropkey.DropKey(0.4, schedule="constant", pattern="token"))
    seen = []
    with listening(seen):
        model(images)
    assert seen.count(nn.Linear) == 2 * 4 + 1


def test_a_forward_put_into_the_attention_class_is_run(images, monkeypatch):
    attention = pytest.importorskip("timm.layers.attention").Attention
    model, seen, forward = tiny_vit(depth=2), [], attention.forward
    dropkey.apply(model, dropkey.DropKey(0.4, schedule="constant", pattern="token"))
    monkeypatch.setattr(attention, "forward", lambda self, *a, **k: (seen.append(1), forward(self, *a, **k))[1])
    model(images)
    assert len(seen) == 2


REGULARIZERS = (
    *(dropkey.DropKey(0.4, schedule="constant", pattern=pattern) for pattern in PATTERNS),
    dropkey.AttentionDropout(0.4, schedule="constant"),
    dropkey.AttentionDropout(0.4, schedule="constant", renormalize=True),
    dropkey.ReAttention(),
)
every_regularizer = pytest.mark.parametrize("regularizer", REGULARIZERS, ids=str)


class Plain(nn.Module):
    """Two attentions with a projection each, without any library."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Projected() for _ in range(2))

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return x


@dropkey.register
class Projected(nn.Module):
    def __init__(self):
        super().__init__()
        self.num_heads, self.qkv = 2, nn.Linear(16, 48)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


@every_regularizer
def test_default_device_and_tensors_without_data(regularizer):
    grid = {} if isinstance(regularizer, dropkey.ReAttention) else {"grid_size": (2, 3)}
    with FakeTensorMode():
        model = Plain().train()
        handle = dropkey.apply(model, regularizer, **grid)
        out = model(torch.randn(2, 6, 16))
        out.sum().backward()
        assert out.shape == (2, 6, 16)
        assert str(handle)
    meta = Plain().to("meta").train()
    dropkey.apply(meta, regularizer, **grid)
    meta(torch.empty(2, 6, 16, device="meta")).sum().backward()
    model = Plain().train()
    dropkey.apply(model, regularizer, **grid)
    x = normal(2, 6, 16)
    torch.manual_seed(1)
    wanted = model(x)
    torch.manual_seed(1)
    with torch.device("meta"):  # as with torch.set_default_device("cuda") and a model on the CPU
        got = model(x)
    assert torch.equal(got, wanted)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert model(torch.empty(2, 6, 16)).shape == (2, 6, 16)


@pytest.mark.parametrize("pattern", ["token", "element"])
def test_timm_on_fake_tensors_default_device_and_no_images(pattern, images):
    model = tiny_vit(depth=1)
    dropkey.apply(model, dropkey.DropKey(0.4, schedule="constant", pattern=pattern))
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert model(torch.empty(2, 3, 32, 32)).shape == (2, 5)
    with torch.device("meta"):
        assert model(images).device.type == "cpu"
    assert model(images[:0]).shape == (0, 5)
    assert model.to("meta")(images.to("meta")).shape == (2, 5)


@native
@pytest.mark.parametrize("change", [frozen_hook, shift, wrap])
def test_fused_re_attention_skips_nothing_that_acts(change):
    model = Plain()
    dropkey.apply(model, dropkey.ReAttention())
    mixer = model.blocks[0].reattention
    call = AttentionCall(*(normal(2, 2, 6, 8),) * 3, None, False, 1.0, None)
    assert refuses(call, mixer) is None
    with heard_globally([]):
        assert "listens" in refuses(call, mixer)
    change(mixer.theta)
    assert refuses(call, mixer) is not None


def test_verify_sees_what_a_fast_path_skips(images, monkeypatch):
    model = tiny_vit(depth=1)
    handle = dropkey.apply(model, dropkey.DropKey(1e-4, schedule="constant", pattern="token"))
    shift(model.blocks[0].attn.qkv)
    handle.verify(images)
    monkeypatch.setattr(token_selection, "_skips_nothing", lambda *_: True)
    monkeypatch.setattr(token_selection, "_is_whole", lambda *_: False)
    with pytest.raises(dropkey.SiteError, match="something else when its keys are left out"):
        handle.verify(images)


# 5. Checkpoints inside of a site and around it.


class CheckpointsItself(nn.MultiheadAttention):
    def __init__(self, use_reentrant):
        super().__init__(16, 2)
        self.use_reentrant = use_reentrant

    def forward(self, x):
        def attend(x):
            return nn.MultiheadAttention.forward(self, x, x, x, need_weights=False)[0]

        return checkpoint(attend, x, use_reentrant=self.use_reentrant)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_a_checkpoint_inside_is_refused_by_name(use_reentrant):
    module = CheckpointsItself(use_reentrant).train()
    dropkey.apply(module, dropkey.DropKey(0.4, schedule="constant"))
    x = normal(6, 2, 16).requires_grad_()
    with pytest.raises(dropkey.SiteError, match="checkpoints its own inside") as error:
        module(x)
    assert one_line(error)
    with torch.no_grad():
        module(x)


@every_regularizer
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_a_checkpoint_around_gives_the_same_gradients(use_reentrant, regularizer):
    grid = {} if isinstance(regularizer, dropkey.ReAttention) else {"grid_size": (2, 3)}
    torch.manual_seed(0)
    model = Plain().train()
    dropkey.apply(model, regularizer, **grid)
    results = []
    for wrapped in (False, True):
        x = normal(2, 6, 16).requires_grad_()
        torch.manual_seed(3)
        out = checkpoint(model, x, use_reentrant=use_reentrant) if wrapped else model(x)
        out.square().sum().backward()
        results.append((out.detach(), x.grad))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


# 6. Loops.


@every_backend
@every_pattern
@pytest.mark.parametrize("loop", LOOPS[1:])
def test_calls_of_a_loop_draw_by_themselves_and_verify_counts_them(loop, pattern, backend):
    module = nn.Sequential(Sliced(loop)).train()
    handle = dropkey.apply(module, dropkey.DropKey(0.5, schedule="constant", pattern=pattern), grid_size=(6, 6),
                           backend=backend)  # fmt: skip
    module.forward = lambda x: module[0](x, x, x)
    (check,) = handle.verify(normal(4, 4, 36, 8)).checks
    assert check.num_calls == 2
    assert "calls" in str(handle)
    keep = module(1e-3 * torch.eye(36).expand(2, 2, 36, 36)).abs() > 1e-9
    halves = keep.chunk(2, {"images": 0, "heads": 1, "queries": 2}[loop])
    assert 0.2 < (halves[0] == halves[1]).float().mean() < 0.8


def test_verify_sees_calls_that_draw_alike(monkeypatch):
    module = nn.Sequential(Sliced("heads")).train()
    handle = dropkey.apply(module, dropkey.DropKey(0.5, schedule="constant"))
    module.forward = lambda x: module[0](x, x, x)
    monkeypatch.setattr(class_swap, "ForwardPass", lambda module, *rest: OneSeed(module))
    with pytest.raises(dropkey.SiteError, match="draw the same keys"):
        handle.verify(normal(2, 2, 16, 8))


class OneSeed(class_swap.ForwardPass):
    def seed(self, slot, device):
        return self.seeds.setdefault((slot, 0), torch.tensor(5))


# 7. Hooks on saved tensors.


def halved(tensor):
    return tensor.bfloat16() if tensor.is_floating_point() else tensor


HOOKS = {
    "none": contextlib.nullcontext,
    "rounded": lambda: saved_tensors_hooks(halved, lambda t: t.float() if t.dtype == torch.bfloat16 else t),
    "narrow": lambda: saved_tensors_hooks(halved, lambda t: t),
    "elsewhere": save_on_cpu,
    "copied": lambda: saved_tensors_hooks(torch.clone, lambda t: t),
}


@every_backend
@every_pattern
@pytest.mark.parametrize("hooks", ["rounded", "narrow", "elsewhere", "copied"])
def test_saved_tensors_may_change_on_the_way(hooks, pattern, backend):
    def gradients(backend, hooks, keys):
        tensors = [normal(2, 3, n, 32, seed=n).requires_grad_() for n in (64, keys, keys)]
        with HOOKS[hooks]():
            out = dropkey.attention(
                *tensors, drop_ratio=0.3, seed=3, backend=backend, pattern=pattern, grid_size=(1, keys)
            )
        grads = torch.autograd.grad(out.square().sum(), tensors)
        return torch.cat([grad.flatten() for grad in grads])

    right = gradients(backend, "none", 64)
    if hooks == "narrow" and backend != "cpu":  # torch's own formulas do not take bfloat16 beside float32
        return
    error = (gradients(backend, hooks, 64) - right).norm() / right.norm()
    torchs = (gradients("sdpa", "rounded" if hooks == "narrow" else hooks, 64) - right).norm() / right.norm()
    assert error <= 1.5 * torchs + 1e-6


@native
@pytest.mark.parametrize("regularizer", [dropkey.ReAttention(), dropkey.DropKey(0.4, "constant", "token")], ids=str)
def test_saved_tensors_of_the_fused_forms(regularizer, images):
    torch.manual_seed(0)
    model = tiny_vit(depth=1)
    dropkey.apply(model, regularizer)
    results = []
    for hooks in ("none", "copied", "rounded"):
        torch.manual_seed(3)
        model.zero_grad()
        with HOOKS[hooks]():
            out = model(images)
        out.square().sum().backward()
        results.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.equal(results[0], results[1])
    assert (results[2] - results[0]).norm() < 0.05 * results[0].norm()


# 8. Copies.


def test_student_and_teacher(images):
    student = tiny_vit()
    handle = dropkey.apply(student, dropkey.DropKey(0.3, schedule="constant"))
    dropkey.apply(student, dropkey.AttentionDropout(0.2, schedule="constant"))
    teacher = copy.deepcopy(student)
    theirs = dropkey.handle(teacher, dropkey.DropKey)
    theirs.disable()
    theirs.drop_ratios = [0.1] * 3
    both = nn.ModuleDict({"student": student, "teacher": teacher})
    assert len(dropkey.handles(both)) == 4
    for ask in (None, dropkey.DropKey):
        with pytest.raises(dropkey.SiteError, match=r"student: DropKey.*teacher: DropKey.*handles\(model\)") as error:
            dropkey.handle(both, ask)
        assert one_line(error)
    with pytest.raises(dropkey.SiteError, match="ReAttention"):
        dropkey.handle(both, dropkey.ReAttention)
    for one in dropkey.handles(both):
        one.load_state_dict(one.state_dict())
    assert handle.enabled
    assert handle.drop_ratios == (0.3,) * 3
    assert not theirs.enabled
    assert list(handle.state_dict()["drop_ratios"]) == [f"blocks.{n}.attn" for n in range(3)]
    assert list(dropkey.handles(both)[2].state_dict()["drop_ratios"]) == [f"teacher.blocks.{n}.attn" for n in range(3)]
    handle.remove()
    assert len(dropkey.handles(both)) == 3
    theirs.enable()


def test_names_in_a_state_leave_wrappers_out():
    model = tiny_vit()
    handle = dropkey.apply(model, dropkey.DropKey(0.3))
    for wrapped in (nn.DataParallel(model), torch.compile(model), torch.optim.swa_utils.AveragedModel(model)):
        state = dropkey.handle(wrapped).state_dict()
        assert state == handle.state_dict()
        other = tiny_vit()
        dropkey.apply(nn.DataParallel(other), state)
        assert dropkey.handle(other).drop_ratios == handle.drop_ratios


# 11. Scales, biases, and logits that overflow.


@pytest.mark.parametrize("backend", ["auto", *RUNNABLE])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_learned_scale_gets_its_gradient(backend, dtype):
    q, k, v = normal(*Q), normal(*K, seed=1), normal(*V, seed=2)
    keep = dropkey.keep_mask(2, 3, 4, 5, drop_ratio=0.4, seed=1)
    for shape in ((), (1,)):
        scale = torch.full(shape, 0.5, dtype=dtype, requires_grad=True)
        out = dropkey.attention(q, k, v, drop_ratio=0.4, seed=1, scale=scale, backend=backend)
        (grad,) = torch.autograd.grad(out.sum(), scale)
        assert out.dtype == torch.float32
        assert grad.dtype == dtype
        wanted = oracle(q, k, v, keep, scale=0.5)
        torch.testing.assert_close(out.double(), wanted[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(grad.double().reshape(()), wanted[4], rtol=1e-4, atol=1e-5)
    with pytest.raises(dropkey.ArgumentError, match="scale must be"):
        dropkey.attention(q, k, v, drop_ratio=0.4, scale=torch.ones(3), backend=backend)
    with pytest.raises(dropkey.ArgumentError, match="scale must be"):
        dropkey.attention(q, k, v, drop_ratio=0.4, scale="half", backend=backend)


LOWEST = (-math.inf, -3.4e38, -3.39e38, -1e32, -1e30, -1e9, -65504.0, -1e4, -5000.0)


@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_low_bias_forbids_in_every_type(backend, dtype):
    if backend == "cpu" and dtype in (torch.float16, torch.float64):
        pytest.skip(f"cpu has no {dtype}")
    q, k, v = (normal(1, 1, 6, 8, seed=n).to(dtype) for n in range(3))
    for bias_dtype in (torch.float32, dtype):
        for lowest in LOWEST:
            bias = torch.zeros(1, 1, 1, 6, dtype=bias_dtype)
            bias[..., 3:] = lowest
            if not (bias.float() <= -5000).any():  # bfloat16 rounds -5000 up
                assert lowest == -5000
                continue
            got = dropkey.attention(q, k, v, attn_bias=bias, drop_ratio=0.9, seed=1, backend=backend)
            may = torch.arange(6) < 3
            want = dropkey.attention(q, k, v, attn_bias=may[None], drop_ratio=0.9, seed=1, backend=backend)
            torch.testing.assert_close(got, want)
            none = dropkey.attention(q, k, v, attn_bias=bias[..., 3:4], drop_ratio=0.4, seed=1, backend=backend)
            assert (none == 0).all()
    almost = torch.zeros(1, 1, 1, 6)
    almost[..., :3] = 4999
    almost[..., 3:] = -4999
    out = dropkey.attention(q, k, v, attn_bias=almost[..., 3:4], drop_ratio=1e-4, seed=1, backend=backend)
    assert out.abs().max() > 0


@every_backend
@pytest.mark.parametrize("keys", [5, 40, 600])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_bias", [False, True])
def test_logits_that_overflow(with_bias, dtype, keys, backend):
    """All to -inf: zeros, and no gradient. Some: those weigh nothing. Not a number stays none."""
    q, k, v = (normal(1, 2, n, 8, seed=n).to(dtype) for n in (4, keys, keys))
    k[:, 0] = k[:, 0].abs() * 1e20
    q[:, 0, 1] = -q[:, 0, 1].abs() * 1e20
    k[:, 0, : keys // 2] = -k[:, 0, : keys // 2] if keys > 40 else k[:, 0, : keys // 2]
    q[:, 0, 0] = q[:, 0, 2] = q[:, 0, 3] = 0
    k[:, 0, : keys // 2] = k[:, 0, : keys // 2].abs()
    q[:, 1, 2] = math.nan
    bias = torch.zeros(1, 1, 4, keys) if with_bias else None
    for tensor in (q, k, v):
        tensor.requires_grad_()
    out = dropkey.attention(q, k, v, drop_ratio=0.3, seed=1, attn_bias=bias, backend=backend)
    assert (out[0, 0, 1] == 0).all()
    assert out[0, 0, [0, 2, 3]].isfinite().all()
    assert out[0, 1, 2].isnan().all()
    assert out[0, 1, [0, 1, 3]].isfinite().all()
    grads = torch.autograd.grad(out[0, 0].float().sum(), (q, k, v))
    assert (grads[0][0, 0, 1] == 0).all()
    assert grads[2][0, 0].isfinite().all()
    assert grads[1][0, 0].isfinite().all()


@every_backend
def test_some_logits_that_overflow_weigh_nothing(backend):
    q, k, v = torch.ones(1, 1, 1, 8), normal(1, 1, 40, 8), normal(1, 1, 40, 8, seed=1)
    k[..., 20:, :] = -1e38
    q.mul_(10)
    small = dropkey.attention(q, k, v, drop_ratio=0.3, seed=1, backend=backend)
    may = torch.arange(40) < 20
    torch.testing.assert_close(small, dropkey.attention(q, k, v, drop_ratio=0.3, seed=1, attn_bias=may[None]))


@pytest.mark.parametrize("bias", [causal_upper_left(6, 6), causal_upper_left(4, 6), causal_lower_right(4, 6)], ids=str)
@pytest.mark.parametrize("backend", ["auto", *RUNNABLE])
def test_causal_bias_objects(bias, backend):
    queries = bias.seq_len_q
    q, k, v = normal(1, 2, queries, 8), normal(1, 2, 6, 8, seed=1), normal(1, 2, 6, 8, seed=2)
    may = bias._materialize("cpu")
    want = dropkey.attention(q, k, v, attn_bias=may, drop_ratio=0.3, seed=1, backend=backend)
    assert torch.equal(dropkey.attention(q, k, v, attn_bias=bias, drop_ratio=0.3, seed=1, backend=backend), want)
    module = Attend().train()
    handle = dropkey.apply(module, dropkey.DropKey(0.3, schedule="constant"), backend=backend)
    leaf = k.clone().requires_grad_()
    out = module(q, leaf, v, bias)
    (grad,) = torch.autograd.grad(out[:, :, 0].sum(), leaf)
    assert not grad[:, :, may[0].sum() :].any()
    handle.verify(q, k, v, bias)


# 12. Layouts, types and seeds.

LAYOUTS = {
    "contiguous": lambda: normal(2, 3, 7, 8),
    "token major": lambda: normal(2, 7, 3, 8).transpose(1, 2),
    "packed": lambda: normal(2, 7, 3, 3, 8).permute(2, 0, 3, 1, 4)[0],
    "channel major": lambda: normal(2, 3, 8, 7).mT,
    "batch last": lambda: normal(3, 7, 8, 2).permute(3, 0, 1, 2),
    "batch expanded": lambda: normal(1, 7, 3, 8).transpose(1, 2).expand(2, -1, -1, -1),
    "heads expanded": lambda: normal(2, 1, 7, 8).expand(-1, 3, -1, -1),
    "gaps": lambda: normal(2, 3, 14, 8)[:, :, ::2],
}
IN_MEMORY = {
    "token major": (0, 2, 1, 3), "packed": (0, 2, 1, 3), "channel major": (0, 1, 3, 2), "batch last": (1, 2, 3, 0),
    "batch expanded": (0, 2, 1, 3),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("value_dim", [8, 5])
def test_the_output_lies_as_the_query_does(layout, value_dim):
    query, key, value = LAYOUTS[layout](), normal(2, 3, 9, 8), normal(2, 3, 9, value_dim)
    axes = IN_MEMORY.get(layout, (0, 1, 2, 3))
    sizes = (2, 3, 7, value_dim)
    strides = torch.empty([sizes[axis] for axis in axes]).permute([axes.index(n) for n in range(4)]).stride()
    drop = {"drop_ratio": 0.3, "seed": 1}
    for backend in RUNNABLE:
        for leaf in (query, query.detach().requires_grad_()):
            out = dropkey.attention(leaf, key, value, backend=backend, **drop)
            assert out.stride() == strides, backend
        meta = (
            dropkey.attention(query.to("meta"), key.to("meta"), value.to("meta"), **drop) if layout != "gaps" else out
        )
        assert meta.stride() == strides
        mode = FakeTensorMode()
        fakes = [mode.from_tensor(tensor) for tensor in (query, key, value)]
        with mode:
            assert dropkey.attention(*fakes, backend=backend, **drop).stride() == strides, backend
    compiled = torch.compile(lambda q: dropkey.attention(q, key, value, **drop), backend="aot_eager", fullgraph=True)
    if layout == "packed":
        assert compiled(query.contiguous().transpose(1, 2).contiguous().transpose(1, 2)).stride() == strides


@pytest.mark.parametrize("backend", ["auto", *RUNNABLE])
@pytest.mark.parametrize("pattern", ["element", "token"])
def test_autocast_decides_the_type_at_every_ratio(pattern, backend):
    q = normal(*Q)
    with torch.autocast("cpu", torch.bfloat16):
        types_ = {dropkey.attention(q, q, q, drop_ratio=r, pattern=pattern).dtype for r in (0.0, 0.3)}
        out = dropkey.attention(q, q, q, drop_ratio=0.3, pattern=pattern, seed=1, backend=backend)
    assert types_ == {torch.bfloat16}
    half = q.bfloat16()
    torch.testing.assert_close(
        out, dropkey.attention(half, half, half, drop_ratio=0.3, pattern=pattern, seed=1, backend=backend)
    )


def test_seeds_are_integers():
    def mask(seed):
        return dropkey.keep_mask(1, 2, 6, 8, drop_ratio=0.5, seed=seed)

    same = (np.int64(7), np.uint8(7), np.array(7), torch.tensor(7), torch.tensor(7, dtype=torch.uint8), 7 + 2**64)
    for seed in same:
        assert torch.equal(mask(seed), mask(7))
    wrong = (7.0, "7", b"7", [7], np.float32(7), True, torch.tensor([7]), torch.tensor(7.0), torch.tensor(True), 7j)
    for seed in wrong:
        with pytest.raises(dropkey.ArgumentError, match="seed must be") as error:
            mask(seed)
        assert one_line(error)


def test_ratios_have_a_resolution():
    for wrong in (1e-9, 7e-6, 0.999999, 1 - 1e-12):
        for use in (
            lambda ratio: dropkey.DropKey(ratio),
            lambda ratio: dropkey.attention(*(normal(1, 1, 2, 4),) * 3, drop_ratio=ratio),
            lambda ratio: dropkey.keep_mask(1, 1, 2, 4, drop_ratio=ratio),
        ):
            with pytest.raises(dropkey.ArgumentError, match=r"7\.63e-06 and 0\.99999"):
                use(wrong)
    handle = dropkey.apply(tiny_vit(), dropkey.DropKey(schedule=[1e-9, 2e-5, 0.3]))
    assert [row.split()[3] for row in str(handle).splitlines()[2:5]] == ["0", "1.526e-05", "0.3"]
    with pytest.raises(dropkey.ArgumentError, match="one floating number"):
        dropkey.attention(*(normal(1, 1, 2, 4),) * 3, drop_ratio=torch.tensor([0.3, 0.4]))


# 15. Settings belong to the call.


@every_pattern
@every_backend
def test_two_ratios_in_one_step(backend, pattern):
    model = nn.Sequential(Attend()).train()
    model.forward = lambda x: model[0](x, x, x)
    handle = dropkey.apply(
        model, dropkey.DropKey(0.6, schedule="constant", pattern=pattern), grid_size=(2, 3), backend=backend
    )
    grads = []
    for together in (True, False):
        x, loss = normal(2, 2, 6, 8).requires_grad_(), 0.0
        torch.manual_seed(3)
        for ratio in (0.6, 0.1):
            handle.drop_ratios = [ratio]
            step = model(x).square().mean()
            loss = loss + step
            if not together:
                step.backward()
        if together:
            handle.disable()
            loss.backward()
            handle.enable()
        grads.append(x.grad)
    torch.testing.assert_close(*grads)


def test_a_ratio_tensor_may_change_before_the_backward_pass():
    q, ratio = normal(*Q).requires_grad_(), torch.tensor(0.4, dtype=torch.float64)
    out = dropkey.attention(q, q, q, drop_ratio=ratio, seed=1)
    ratio.fill_(0.9)
    (grad,) = torch.autograd.grad(out.sum(), q)
    want = torch.autograd.grad(dropkey.attention(q, q, q, drop_ratio=0.4, seed=1).sum(), q)[0]
    assert torch.equal(grad, want)


def weaken(handle):
    handle.drop_ratios = [0.1] * len(handle.drop_ratios)


def other_grid(handle):
    for module in handle.model.modules():
        if site_of(module):
            site_of(module).grid_size = (3, 2)


@pytest.mark.parametrize("change", [weaken, dropkey.Handle.disable, other_grid], ids=lambda change: change.__name__)
@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("regularizer", REGULARIZERS[:-1], ids=str)
def test_settings_that_change_before_a_recomputation(regularizer, use_reentrant, change):
    model = Plain().train()
    handle = dropkey.apply(model, regularizer, grid_size=(2, 3))
    x = normal(2, 6, 16).requires_grad_()
    out = checkpoint(model, x, use_reentrant=use_reentrant)
    change(handle)
    with pytest.raises(dropkey.SiteError, match=r"recomputed in a backward pass with .*between steps") as error:
        out.sum().backward()
    assert one_line(error)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_acting_in_the_recomputation_alone(use_reentrant):
    model = Plain().train()
    handle = dropkey.apply(model, dropkey.DropKey(0.4, schedule="constant"))
    handle.disable()
    out = checkpoint(model, normal(2, 6, 16).requires_grad_(), use_reentrant=use_reentrant)
    handle.enable()
    with pytest.raises(dropkey.SiteError, match="in no forward pass did it act"):
        out.sum().backward()
    out = checkpoint(model, normal(2, 6, 16).requires_grad_(), use_reentrant=use_reentrant, preserve_rng_state=False)
    with pytest.raises(dropkey.SiteError, match="preserve_rng_state=True"):
        out.sum().backward()


def test_what_draws_nothing_may_be_recomputed_with_any_random_state():
    model = Plain().train()
    dropkey.apply(model, dropkey.ReAttention())
    x = normal(2, 6, 16).requires_grad_()
    checkpoint(model, x, use_reentrant=False, preserve_rng_state=False).sum().backward()
    assert x.grad is not None


def test_ratios_may_change_between_steps_under_checkpoints():
    model = Plain().train()
    handle = dropkey.apply(model, dropkey.DropKey(0.4, schedule="constant"))
    for step in range(4):
        handle.drop_ratios = [0.1 + step / 10] * 2
        checkpoint(model, normal(2, 6, 16).requires_grad_(), use_reentrant=step % 2 == 0).sum().backward()


# 16. torch.func, nested tensors, nothing at all.


# Of torch's own decompositions, the first time that they are used.
without_torchs_warning = pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")


@without_torchs_warning
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("backend", ["auto", *RUNNABLE])
@every_pattern
def test_transforms_are_right_or_refused_by_name(pattern, backend):
    q, k, v = normal(*Q), normal(*K, seed=1), normal(*V, seed=2)

    def attend(query, backend=backend):
        drop = {"drop_ratio": 0.4, "seed": 1, "pattern": pattern, "grid_size": (1, 5)}
        return dropkey.attention(query, k, v, backend=backend, **drop)

    def loss(query, backend=backend):
        return attend(query, backend).square().sum()

    leaf = q.clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss(leaf, "reference"), leaf, create_graph=True)
    (again,) = torch.autograd.grad(grad.square().sum(), leaf)
    transforms = {
        "grad": (lambda: torch.func.grad(loss)(q), grad),
        "vjp": (lambda: torch.func.vjp(loss, q)[1](torch.tensor(1.0))[0], grad),
        "jvp": (lambda: torch.func.jvp(loss, (q,), (q,))[1], (grad * q).sum()),
        "jacrev": (lambda: torch.func.jacrev(loss)(q), grad),
        "grad of grad": (lambda: torch.func.grad(lambda x: torch.func.grad(loss)(x).square().sum())(q), again),
        "vmap": (lambda: torch.func.vmap(attend)(torch.stack([q, 2 * q])), torch.stack([attend(q), attend(2 * q)])),
    }
    for name, (transformed, want) in transforms.items():
        is_for_others = backend == "cpu" or (backend == "sdpa" and name in ("jvp", "grad of grad", "vmap"))
        if is_for_others:
            with pytest.raises(dropkey.BackendError, match="use backend='auto'"):
                transformed()
        else:
            torch.testing.assert_close(transformed(), want.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("regularizer", REGULARIZERS[:-1], ids=str)
def test_gradients_of_single_images(regularizer):
    model = Plain().train()
    dropkey.apply(model, regularizer, grid_size=(2, 3))
    x, weights = normal(3, 6, 16), {name: p.detach() for name, p in model.named_parameters()}

    def loss(weights, image):
        return torch.func.functional_call(model, weights, (image[None],)).square().sum()

    each = torch.func.grad(loss), (None, 0)
    grads = torch.func.vmap(each[0], in_dims=each[1], randomness="same")(weights, x)
    torch.manual_seed(3)
    grads = torch.func.vmap(each[0], in_dims=each[1], randomness="same")(weights, x)
    torch.manual_seed(3)
    alone = torch.func.vmap(each[0], in_dims=each[1], randomness="same")(weights, x[:1])
    torch.testing.assert_close(grads["blocks.0.qkv.weight"][0], alone["blocks.0.qkv.weight"][0], rtol=1e-4, atol=1e-4)
    torch.func.vmap(each[0], in_dims=each[1], randomness="different")(weights, x)
    with pytest.raises(dropkey.ArgumentError, match="randomness='different'"):
        torch.func.vmap(each[0], in_dims=each[1])(weights, x)


def test_examples_of_vmap_draw_as_they_are_told_to():
    eye = torch.eye(16).expand(4, 1, 2, 16, 16)
    for randomness, alike in (("same", True), ("different", False)):
        keep = torch.func.vmap(lambda v: dropkey.attention(v * 0, v * 0, v, drop_ratio=0.5), randomness=randomness)(eye)
        assert torch.equal(keep[0] > 0, keep[1] > 0) is alike


@without_torchs_warning
def test_re_attention_says_what_transforms_cannot_follow():
    model = Plain().train()
    dropkey.apply(model, dropkey.ReAttention())
    with pytest.raises(dropkey.SiteError, match="counts batches in place"):
        torch.func.grad(lambda x: model(x).sum())(normal(2, 6, 16))
    model.eval()
    torch.func.grad(lambda x: model(x).sum())(normal(2, 6, 16))
    torch.func.jvp(model, (normal(2, 6, 16),), (normal(2, 6, 16),))


@pytest.mark.parametrize("backend", ["auto", *RUNNABLE])
@every_pattern
def test_nothing_at_all_is_what_torch_makes_of_it(pattern, backend):
    for q, k in (((2, 3, 4, 8), (2, 3, 0, 8)), ((2, 0, 4, 8), (2, 0, 5, 8)), ((0, 3, 4, 8), (0, 3, 5, 8)),
                 ((2, 3, 0, 8), (2, 3, 5, 8))):  # fmt: skip
        tensors = [normal(*shape).requires_grad_() for shape in (q, k, k)]
        out = dropkey.attention(*tensors, drop_ratio=0.4, pattern=pattern, grid_size=(1, 5), backend=backend)
        plain = F.scaled_dot_product_attention(*tensors)
        assert torch.equal(out, plain)
        grads = torch.autograd.grad(out.sum(), tensors)
        assert all(torch.equal(g, w) for g, w in zip(grads, torch.autograd.grad(plain.sum(), tensors), strict=True))
    if backend != "cpu":
        value = normal(2, 3, 5, 4)
        no_channels = (normal(2, 3, 4, 0), normal(2, 3, 5, 0), value)
        out = dropkey.attention(*no_channels, drop_ratio=1e-4, seed=1, backend=backend)
        torch.testing.assert_close(out, value.mean(2, keepdim=True).expand_as(out))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors_are_refused_by_name(layout):
    nested = torch.nested.nested_tensor([normal(4, 3, 8), normal(6, 3, 8)], layout=layout).transpose(1, 2)
    with pytest.raises(dropkey.ArgumentError, match="to_padded_tensor") as error:
        dropkey.attention(nested, nested, nested, drop_ratio=0.3)
    assert one_line(error)
    module = Attend()
    dropkey.apply(module, dropkey.DropKey(0.3, schedule="constant"))
    with pytest.raises(dropkey.SiteError, match="to_padded_tensor"):
        module.train()(nested, nested, nested)
    if layout is torch.strided:
        return
    plain = F.scaled_dot_product_attention(nested, nested, nested)
    assert type(module.eval()(nested, nested, nested)) is type(plain)
    assert type(dropkey.attention(nested, nested, nested)) is type(plain)


# Verify: the grid of this pass.


@pytest.mark.parametrize("pattern", [name for name, cls in PATTERNS.items() if cls.needs_grid])
@pytest.mark.parametrize("dynamic", [False, True])
def test_verify_sees_windows_on_another_grid(pattern, dynamic):
    model = tiny_vit(depth=1, img_size=32, dynamic_img_size=dynamic)
    handle = dropkey.apply(model, dropkey.DropKey(0.3, schedule="constant", pattern=pattern), grid_size=(8, 8))
    handle.verify(normal(2, 3, 32, 32))
    if not dynamic:
        model.set_input_size(img_size=(16, 64))
    with pytest.raises(dropkey.SiteError, match=r"draws windows on 8 x 8 patches, but this input has 4 x 16") as error:
        handle.verify(normal(2, 3, 16, 64))
    assert one_line(error)
