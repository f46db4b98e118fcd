"""The token pattern computes no dropped key: the same result as masking, and less work."""

import pytest
import torch
from conftest import tiny_vit
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import dropkey
from dropkey.adapters import class_swap, token_selection
from dropkey.ops import dispatch
from dropkey.ops.call import Draw
from dropkey.ops.cpu import library
from dropkey.ops.cpu.operators import attention_operator
from dropkey.ops.dispatch import BACKENDS
from dropkey.patterns import Geometry


class SeenKeys(TorchFunctionMode):
    """Notes how many keys every attention call has."""

    def __init__(self):
        super().__init__()
        self.keys = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention:
            self.keys.append(args[1].shape[2])
        return func(*args, **(kwargs or {}))


def gradients(model, images):
    torch.manual_seed(3)
    out = model(images)
    model.zero_grad()
    out.square().sum().backward()
    return out.detach(), [parameter.grad.clone() for parameter in model.parameters()]


VARIANTS = [{}, {"qk_norm": True}, {"qkv_bias": False}, {"scale_attn_norm": True}]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_equals_masking(variant, images, monkeypatch):
    model = tiny_vit(**variant).double()
    dropkey.apply(model, dropkey.DropKey(0.5, schedule="constant", pattern="token"))
    with SeenKeys() as seen:
        out, grads = gradients(model, images.double())
    assert seen.keys == [32, 32, 32]  # 65 keys, 33 dropped
    monkeypatch.setattr(class_swap, "forward_selected", lambda *_, **__: None)
    masked_out, masked_grads = gradients(model, images.double())
    torch.testing.assert_close(out, masked_out)
    torch.testing.assert_close(grads, masked_grads)


class SeenOperators(TorchDispatchMode):
    """Notes how many keys every call of the native kernel has, and whether it draws."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is attention_operator:
            self.calls.append((args[1].shape[2], args[-1][0]))
        return func(*args, **(kwargs or {}))


@pytest.mark.skipif(library.unavailable() is not None, reason=str(library.unavailable()))
def test_kept_keys_run_on_the_native_kernel(vit, images, monkeypatch):
    dropkey.apply(vit, dropkey.DropKey(0.5, schedule="constant", pattern="token"))
    seen = []

    def attend(*arguments):
        seen.append(arguments[1].shape)
        return dispatch.attend_projected(*arguments)

    monkeypatch.setattr(token_selection, "attend_projected", attend)
    out, grads = gradients(vit, images)
    assert seen == [(len(images), 32)] * 3
    monkeypatch.setattr(class_swap, "forward_selected", lambda *_, **__: None)
    masked_out, masked_grads = gradients(vit, images)
    torch.testing.assert_close(out, masked_out, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grads, masked_grads, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(library.unavailable() is not None, reason=str(library.unavailable()))
@pytest.mark.parametrize("frozen", ["", "weight", "bias"])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_projections_and_attention_as_one_node_equal_the_composed_form(qkv_bias, frozen, images, monkeypatch):
    model = tiny_vit(qkv_bias=qkv_bias)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, std=0.3)
        parameter.requires_grad_(not (frozen and name.endswith("attn.qkv." + frozen)))
    dropkey.apply(model, dropkey.DropKey(0.5, schedule="constant", pattern="token"))
    results = []
    for is_one_node in (True, False):
        torch.manual_seed(3)
        out = model(images)
        names = [type(node).__name__ for node in nodes_of(out)]
        assert names.count("_ProjectedBackward") == (3 if is_one_node else 0)
        wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
        results.append((out.detach(), *torch.autograd.grad(out.square().sum(), wanted)))
        monkeypatch.setattr(token_selection, "_is_whole", lambda *_: False)
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5 * want.abs().max().item())


def nodes_of(out):
    """All nodes of the graph that ends in ``out``."""
    seen, left = set(), [out.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            left.extend(follower for follower, _ in node.next_functions)
    return seen


@pytest.mark.skipif(library.unavailable() is not None, reason=str(library.unavailable()))
def test_one_node_has_no_second_derivative(vit, images):
    dropkey.apply(vit, dropkey.DropKey(0.5, schedule="constant", pattern="token"))
    weight = vit.blocks[1].attn.qkv.weight
    (grad,) = torch.autograd.grad(vit(images).square().sum(), weight, create_graph=True)
    with pytest.raises(dropkey.BackendError, match="no second derivative"):
        grad.sum().backward()


@pytest.mark.skipif(library.unavailable() is not None, reason=str(library.unavailable()))
def test_under_autocast_and_checkpointing(vit, images):
    dropkey.apply(vit, dropkey.DropKey(0.5, schedule="constant", pattern="token"))
    out, grads = gradients(vit, images)
    vit.set_grad_checkpointing()
    again, grads_again = gradients(vit, images)
    assert torch.equal(out, again)
    torch.testing.assert_close(grads, grads_again)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half, _ = gradients(vit, images)
    torch.testing.assert_close(half.float(), out, rtol=0.1, atol=0.1)


def test_a_backend_asked_for_that_cannot_run_is_an_error(vit, images, monkeypatch):
    dropkey.apply(vit, dropkey.DropKey(0.5, schedule="constant", pattern="token"), backend="sdpa")
    monkeypatch.setattr(type(BACKENDS["sdpa"]), "unavailable", lambda self: "it is Sunday")
    with pytest.raises(dropkey.BackendError, match="it is Sunday"):
        vit(images)


def test_gated_attention():
    layers = pytest.importorskip("timm.layers")
    torch.manual_seed(0)
    model = torch.nn.Sequential(layers.Attention(48, 3, gated=True, qkv_bias=True).double())
    x = torch.randn(2, 9, 48, dtype=torch.float64)
    handle = dropkey.apply(model, dropkey.DropKey(0.5, pattern="token"))
    handle.verify(x)


@pytest.mark.parametrize("ratio", [0.01, 0.3, 0.5, 0.99])
@pytest.mark.parametrize("keys", [1, 16, 65, 198])
def test_kept_tokens_are_those_of_the_mask(keys, ratio, monkeypatch):
    mask = dropkey.keep_mask(5, 3, 1, keys, drop_ratio=ratio, pattern="token", seed=4)[:, 0, 0]
    draw = Draw.of(dropkey.Token(), ratio, 4, torch.device("cpu"))
    for reason in (library.unavailable(), "it is Sunday"):
        monkeypatch.setattr(library, "unavailable", lambda reason=reason: reason)
        rows = dispatch.kept_tokens(draw, Geometry(5, 3, keys, keys))
        kept = rows - keys * torch.arange(5)[:, None]
        assert torch.equal(torch.zeros_like(mask).scatter(1, kept, True), mask)
        assert kept.shape[1] == mask[0].sum()


def test_verify_sees_the_mask(vit, images):
    handle = dropkey.apply(vit, dropkey.DropKey(0.5, schedule="constant", pattern="token"))
    assert [check.dropped_share for check in handle.verify(images).checks] == pytest.approx([33 / 65] * 3)


def test_verify_notices_wrong_keys(vit, images, monkeypatch):
    handle = dropkey.apply(vit, dropkey.DropKey(0.5, schedule="constant", pattern="token"))
    monkeypatch.setattr(token_selection, "kept_tokens", lambda *arguments: dispatch.kept_tokens(*arguments).roll(1, 0))
    with pytest.raises(dropkey.SiteError, match=r"blocks\.0\.attn differs from the reference"):
        handle.verify(images)


def test_listeners_and_other_layers_are_masked(vit, images):
    """Somebody listens to qkv of one block, and has replaced that of another: both must run as they are."""

    class Other(torch.nn.Linear):
        pass

    heard = []
    vit.blocks[0].attn.qkv.register_forward_hook(lambda *_: heard.append(1))
    vit.blocks[1].attn.qkv = Other(48, 144)
    handle = dropkey.apply(vit, dropkey.DropKey(0.5, schedule="constant", pattern="token"), backend="sdpa")
    with SeenKeys() as seen:
        vit(images)
    assert seen.keys == [65, 65, 32]
    assert heard == [1]
    handle.verify(images)


def test_beside_another_regularizer_it_is_masked(vit, images, monkeypatch):
    monkeypatch.setattr(token_selection, "attend_projected", None)  # nobody may call it
    dropkey.apply(vit, dropkey.DropKey(0.5, schedule="constant", pattern="token"))
    dropkey.apply(vit, dropkey.AttentionDropout(0.1, schedule="constant", renormalize=True))
    with SeenKeys() as seen, SeenOperators() as native:
        vit(images)
    assert seen.keys == native.calls == []  # weights are materialized for the dropout


def test_evaluation_sees_all_keys(vit, images):
    dropkey.apply(vit, dropkey.DropKey(0.5, schedule="constant", pattern="token"))
    with SeenKeys() as seen:
        vit.eval()(images)
    assert seen.keys == [65, 65, 65]


def test_compiles_once_and_masks(vit, images):
    torch._dynamo.reset()
    handle = dropkey.apply(vit, dropkey.DropKey(0.5, schedule="constant", pattern="token"))
    compiled = torch.compile(vit, fullgraph=True, backend="eager")
    for ratio in (0.2, 0.5, 0.7):
        handle.drop_ratios = [ratio] * 3
        torch.manual_seed(3)
        got = compiled(images)
        torch.manual_seed(3)
        torch.testing.assert_close(got, vit(images), rtol=1e-4, atol=1e-4)
    torch._dynamo.reset()
