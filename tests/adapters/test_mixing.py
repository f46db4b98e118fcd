"""Re-attention on other people's models: the identity start, the formula, with DropKey, and its way out again."""

import copy
import pickle

import numpy as np
import pytest
import timm
import torch
from conftest import tiny_vit
from oracles import reattention as oracle
from torch import nn
from torch.nn import functional as F

import dropkey
from dropkey.adapters.slots import reattention as mix_slot
from dropkey.ops.cpu import library

each_norm = pytest.mark.parametrize("norm", ["batch", "layer"])
needs_kernel = pytest.mark.skipif(library.unavailable() is not None, reason=str(library.unavailable()))
each_mode = pytest.mark.parametrize("training", [True, False])


@dropkey.register
class SelfAttention(nn.Module):
    """Attention of one's own, whose weights are easy to write in NumPy."""

    def __init__(self, num_heads=2, attn_drop=0.0):
        super().__init__()
        self.num_heads = num_heads
        self.attn_drop = attn_drop
        self.qkv = nn.Linear(8, 24)

    def forward(self, x, attn_mask=None):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        rate = self.attn_drop if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, attn_mask, rate).transpose(1, 2).flatten(2)


def own_model(num_heads=2, attn_drop=0.0):
    torch.manual_seed(0)
    return SelfAttention(num_heads, attn_drop).double()


@pytest.fixture
def tokens():
    return torch.randn(3, 7, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def set_gates(model, value):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("reattention.gate"):
                parameter.fill_(value)
    return model


def reference(module, x, gate, training, keep=None, allowed=None):
    """The whole module in NumPy, float64."""
    weight, bias = module.qkv.weight.detach().numpy(), module.qkv.bias.detach().numpy()
    qkv = (x.numpy() @ weight.T + bias).reshape(*x.shape[:2], 3, module.num_heads, -1).transpose(2, 0, 3, 1, 4)
    q, k, v = qkv
    logits = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    logits = logits if keep is None else np.where(keep, logits, -1e30)
    logits = logits if allowed is None else np.where(allowed, logits, -np.inf)
    attn = np.exp(logits - logits.max(-1, keepdims=True))
    attn /= attn.sum(-1, keepdims=True)
    mixer = module.reattention
    arrays = [p.detach().numpy() for p in (mixer.norm.weight, mixer.norm.bias)]
    theta_bias = None if mixer.theta.bias is None else mixer.theta.bias.detach().numpy()
    maps = oracle.mixed(attn, mixer.theta.weight.detach().numpy()[:, :, 0, 0], theta_bias)
    if isinstance(mixer.norm, nn.LayerNorm):
        maps = oracle.layer_normalized(maps, *arrays)
    else:
        statistics = () if training else (mixer.norm.running_mean.numpy(), mixer.norm.running_var.numpy())
        maps = oracle.batch_normalized(maps, *arrays, *statistics)
    change = gate * (maps - attn)
    change = change if allowed is None else np.where(allowed, change, 0)
    return ((attn + change) @ v).swapaxes(1, 2).reshape(*x.shape[:2], -1)


@each_norm
@each_mode
def test_formula(norm, training, tokens):
    model = own_model()
    dropkey.apply(model, dropkey.ReAttention(norm=norm))
    set_gates(model, 0.7).train(training)
    want = reference(model, tokens, 0.7, training)
    np.testing.assert_allclose(model(tokens).detach().numpy(), want, rtol=1e-9, atol=1e-10)


@each_norm
def test_mask_before_the_softmax_and_mixing_after_it(norm, tokens):
    model = own_model()
    dropkey.apply(model, dropkey.ReAttention(norm=norm))
    handle = dropkey.apply(model, dropkey.DropKey(0.4))
    set_gates(model, 0.7).train()
    torch.manual_seed(5)
    out = model(tokens).detach().numpy()
    torch.manual_seed(5)
    keep = dropkey.keep_mask(3, 2, 7, 7, drop_ratio=0.4).numpy()
    assert 0 < keep.mean() < 1
    np.testing.assert_allclose(out, reference(model, tokens, 0.7, True, keep), rtol=1e-9, atol=1e-10)
    handle.verify(tokens)


@each_mode
def test_forbidden_keys_stay_forbidden(training, tokens):
    model = own_model()
    dropkey.apply(model, dropkey.ReAttention())
    set_gates(model, 0.7).train(training)
    allowed = torch.rand(3, 1, 7, 7, generator=torch.Generator().manual_seed(2)) < 0.6
    allowed[..., 0] = True
    want = reference(model, tokens, 0.7, training, allowed=allowed.numpy())
    np.testing.assert_allclose(model(tokens, allowed).detach().numpy(), want, rtol=1e-9, atol=1e-10)


@each_norm
@each_mode
@pytest.mark.parametrize("fused", [True, False])
def test_identity_start_is_exact(norm, training, fused, images):
    model = tiny_vit().train(training)
    for block in model.blocks:
        block.attn.fused_attn = fused
    before = model(images)
    dropkey.apply(model, dropkey.ReAttention(norm=norm))
    after = model(images)
    assert torch.equal(before, after)
    after.square().sum().backward()
    gates = [parameter for name, parameter in model.named_parameters() if name.endswith("gate")]
    assert len(gates) == 3
    assert all(gate.grad.abs() > 0 for gate in gates)


def test_identity_start_beside_dropkey(images):
    """The same seed, the same masks, the same output, bit for bit."""
    outs = []
    for mixes in (False, True):
        model = tiny_vit().train()
        if mixes:
            dropkey.apply(model, dropkey.ReAttention())
        dropkey.apply(model, dropkey.DropKey(0.3))
        torch.manual_seed(4)
        outs.append(model(images))
    assert torch.equal(*outs)


@each_norm
def test_it_trains(norm, images):
    model = tiny_vit().train()
    dropkey.apply(model, dropkey.ReAttention(norm=norm))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    theta = model.blocks[0].attn.reattention.theta.weight.clone()
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(images), torch.tensor([0, 1])).backward()
        optimizer.step()
    assert not torch.equal(model.blocks[0].attn.reattention.theta.weight, theta)
    assert model.blocks[0].attn.reattention.gate.abs() > 0


@pytest.fixture
def fused_calls(monkeypatch):
    """Calls of the fused form, counted."""
    calls, right = [], mix_slot.attend_mixed

    def counted(*args, **kwargs):
        calls.append(args)
        return right(*args, **kwargs)

    monkeypatch.setattr(mix_slot, "attend_mixed", counted)
    return calls


@needs_kernel
@each_mode
@pytest.mark.parametrize("drop_ratio", [None, 0.3])
def test_the_fused_form_is_the_unfused_one(training, drop_ratio, images, fused_calls):
    """Outputs, all gradients and statistics; where the reference is asked for, nothing is fused."""
    results = []
    for backend in ("auto", "reference"):
        model = tiny_vit().train(training)
        dropkey.apply(model, dropkey.ReAttention())
        dropkey.apply(model, dropkey.DropKey(drop_ratio or 0.0), backend=backend)
        set_gates(model, 0.5)
        torch.manual_seed(3)
        out = model(images)
        out.square().sum().backward()
        assert len(fused_calls) == 3
        # The gradient of the bias before a batch norm is 0; what the unfused form has there is its rounding.
        named = {name: p.grad for name, p in model.named_parameters() if not (training and name.endswith("theta.bias"))}
        results.append([out, *named.values(), *model.buffers()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@needs_kernel
def test_what_is_not_fused(images, fused_calls):
    """What needs the maps, or another arithmetic."""

    def mixed(dtype=torch.float32, **arguments):
        model = tiny_vit(**arguments).to(dtype).train()
        dropkey.apply(model, dropkey.ReAttention())
        return model

    dropped, masked = mixed(), mixed()
    dropkey.apply(dropped, dropkey.AttentionDropout(0.3, schedule="constant"))
    dropkey.apply(masked, dropkey.DropKey(0.3), backend="sdpa")
    for model in (dropped, masked, mixed(attn_drop_rate=0.2), nn.SyncBatchNorm.convert_sync_batchnorm(mixed())):
        model(images)
    mixed(torch.float64)(images.double())
    assert not fused_calls
    mixed()(images)
    assert len(fused_calls) == 3


@each_norm
def test_verify_and_table(norm, images):
    model = set_gates(tiny_vit(), 0)
    handle = dropkey.apply(model, dropkey.ReAttention(norm=norm))
    set_gates(model, 0.25)
    drop = dropkey.apply(model, dropkey.DropKey(0.3))
    buffers = {key: value.clone() for key, value in model.named_buffers()}
    checks = handle.verify(images).checks
    assert [check.gate for check in checks] == [0.25] * 3
    assert all(check.largest_change > 1e-3 for check in checks)
    assert all(torch.equal(value, buffers[key]) for key, value in model.named_buffers())
    assert len(drop.verify(images).checks) == 3
    assert "blocks.2.attn  self  2" in str(handle)
    assert f"{norm}  0.25" in " ".join(str(handle).split("\n")[2].split()).replace(" ", "  ")


def test_verify_notices_a_site_that_mixes_wrongly(images):
    model = tiny_vit()
    handle = dropkey.apply(model, dropkey.ReAttention())
    set_gates(model, 0.25)
    mixer = model.blocks[1].attn.reattention
    right = mixer.forward
    mixer.forward = lambda attn, allowed=None: right(attn, allowed) * 1.01
    with pytest.raises(dropkey.DropKeyError, match=r"blocks\.1\.attn differs from the formula"):
        handle.verify(images)


@needs_kernel
def test_verify_notices_a_fused_form_that_mixes_wrongly(images, monkeypatch):
    model = tiny_vit()
    handle = dropkey.apply(model, dropkey.ReAttention())
    set_gates(model, 0.25)
    right = mix_slot.attend_mixed
    monkeypatch.setattr(mix_slot, "attend_mixed", lambda *args, **kwargs: right(*args, **kwargs) * 1.01)
    with pytest.raises(dropkey.DropKeyError, match=r"blocks\.0\.attn differs from the formula"):
        handle.verify(images)


def test_remove_takes_everything_away(images):
    model = tiny_vit().eval()
    keys, classes, before = list(model.state_dict()), [type(m) for m in model.modules()], model(images)
    handle = dropkey.apply(model, dropkey.ReAttention())
    set_gates(model, 0.5)
    assert "blocks.1.attn.reattention.theta.weight" in model.state_dict()
    assert not torch.equal(model(images), before)
    handle.disable()
    assert torch.equal(model(images), before)
    handle.enable()
    handle.remove()
    assert list(model.state_dict()) == keys
    assert [type(module) for module in model.modules()] == classes
    assert torch.equal(model(images), before)


@pytest.mark.parametrize(
    ("regularizer", "places"),
    [
        (dropkey.ReAttention(), [0, 1, 2, 3]),
        (dropkey.ReAttention(last=2), [2, 3]),
        (dropkey.ReAttention(last=4), [0, 1, 2, 3]),
        (dropkey.ReAttention(blocks=[3, 0]), [0, 3]),
    ],
)
def test_which_blocks(regularizer, places):
    model = tiny_vit(depth=4)
    assert [site.block_index for site in dropkey.apply(model, regularizer).sites] == places


def test_other_kinds_are_named_and_left_alone():
    model = timm.create_model("cait_xxs24_224", img_size=32, depth=2, embed_dim=32, num_heads=2).eval()
    handle = dropkey.apply(model, dropkey.ReAttention(last=1))
    assert [site.name for site in handle.sites] == ["blocks.1.attn"]
    assert "nothing is mixed there: blocks_token_only.0.attn" in str(handle)


def test_it_outlives_copy_pickle_and_checkpoints(images):
    model = tiny_vit()
    dropkey.apply(model, dropkey.ReAttention())
    set_gates(model, 0.5).eval()
    want = model(images)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(images), want)
        handle = dropkey.handle(other)
        handle.remove()
        assert not any("reattention" in key for key in other.state_dict())
    assert torch.equal(model(images), want)
    loaded = tiny_vit()
    dropkey.apply(loaded, dropkey.ReAttention())
    loaded.load_state_dict(model.state_dict())
    assert torch.equal(loaded.eval()(images), want)


@each_norm
def test_activation_checkpointing_changes_nothing(norm, images):
    """Not even the statistics, although every forward pass of a block runs twice."""
    results = []
    for enabled in (False, True):
        model = tiny_vit()
        dropkey.apply(model, dropkey.DropKey(0.3))
        dropkey.apply(model, dropkey.ReAttention(norm=norm))
        set_gates(model, 0.5).train().set_grad_checkpointing(enabled)
        torch.manual_seed(3)
        model(images).square().sum().backward()
        results.append([*(p.grad for p in model.parameters()), *model.buffers()])
    assert all(torch.allclose(one, other, rtol=1e-4, atol=1e-5) for one, other in zip(*results, strict=True))
    assert all(count == 1 for name, count in model.named_buffers() if name.endswith("num_batches_tracked"))


def test_batch_norms_can_be_synchronized(images):
    model = tiny_vit()
    dropkey.apply(model, dropkey.ReAttention())
    set_gates(model, 0.5).eval()
    before = model(images)
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert isinstance(model.blocks[0].attn.reattention.norm, nn.SyncBatchNorm)
    assert torch.allclose(model(images), before, atol=1e-6)
    assert torch.isfinite(model.train()(images)).all()


def test_the_models_own_dropout_stays_on(tokens):
    """Weights are dropped first, then mixed, as in the authors' code."""
    model = own_model(attn_drop=0.5)
    dropkey.apply(model, dropkey.ReAttention())
    model.train()
    assert model.attn_drop == 0.5
    torch.manual_seed(0)
    first = model(tokens)
    assert not torch.equal(first, model(tokens))
    drop = dropkey.apply(model, dropkey.DropKey(0.0))
    assert model.attn_drop == 0
    assert torch.equal(model(tokens), model(tokens))
    drop.remove()
    assert model.attn_drop == 0.5


@pytest.mark.parametrize("renormalize", [False, True])
def test_beside_the_dropout_baseline(renormalize, images):
    model = tiny_vit().train()
    handle = dropkey.apply(model, dropkey.ReAttention())
    dropout = dropkey.apply(model, dropkey.AttentionDropout(0.3, renormalize=renormalize, schedule="constant"))
    set_gates(model, 0.5)
    handle.verify(images)
    dropout.verify(images)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models(dtype, images):
    model = tiny_vit().to(dtype)
    handle = dropkey.apply(model, dropkey.ReAttention())
    assert model.blocks[0].attn.reattention.gate.dtype == torch.float32
    set_gates(model, 0.5)
    handle.verify(images.to(dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert model.float()(images).isfinite().all()


def test_torchs_fast_path_does_not_run_around_it(tokens):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dtype=torch.float64).eval()
    with torch.no_grad():
        before = layer(tokens)
        handle = dropkey.apply(layer, dropkey.ReAttention())
        torch.testing.assert_close(layer(tokens), before)
        set_gates(layer, 0.5)
        assert (layer(tokens) - before).abs().max() > 1e-3
        assert pickle.loads(pickle.dumps(layer))(tokens).equal(layer(tokens))
        handle.verify(tokens)
        handle.remove()
        assert torch.equal(layer(tokens), before)
    assert not layer.self_attn._forward_pre_hooks


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_transformers(implementation, images):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    model = transformers.ViTForImageClassification(config).eval()
    model.set_attn_implementation(implementation)
    before = model(images).logits
    handle = dropkey.apply(model, dropkey.ReAttention(last=1))
    assert torch.equal(model(images).logits, before)
    set_gates(model, 0.5)
    assert not torch.equal(model(images).logits, before)
    assert handle.verify(images).checks[0].largest_change > 1e-3
    handle.remove()
    assert torch.equal(model(images).logits, before)


def test_monte_carlo_mixes_as_in_evaluation(images):
    model = tiny_vit()
    dropkey.apply(model, dropkey.ReAttention())
    dropkey.apply(model, dropkey.DropKey(0.3))
    set_gates(model, 0.5)
    buffers = {key: value.clone() for key, value in model.named_buffers()}
    assert dropkey.monte_carlo(model, images, samples=3).std.max() > 0
    assert all(torch.equal(value, buffers[key]) for key, value in model.named_buffers())


def test_a_model_with_it_exports(images):
    model = tiny_vit().eval()
    dropkey.apply(model, dropkey.ReAttention())
    set_gates(model, 0.5)
    program = torch.export.export(model, (images,))
    torch.testing.assert_close(program.module()(images), model(images))


class Shapeless(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


class Twice(SelfAttention):
    def forward(self, x):
        return super().forward(super().forward(x))


def test_what_cannot_be_mixed(images, tokens):
    model = tiny_vit()
    with pytest.raises(dropkey.DropKeyError, match="needs 7 blocks with plain self-attention, the model has 3"):
        dropkey.apply(model, dropkey.ReAttention(last=7))
    handle = dropkey.apply(model, dropkey.ReAttention())
    with pytest.raises(dropkey.DropKeyError, match="is on this model already"):
        dropkey.apply(model, dropkey.ReAttention())
    with pytest.raises(dropkey.DropKeyError, match="has no drop ratios"):
        handle.drop_ratios = [0.1] * 3
    with pytest.raises(dropkey.DropKeyError, match="has no backends"):
        dropkey.apply(tiny_vit(), dropkey.ReAttention(), backend="reference")
    with pytest.raises(dropkey.DropKeyError, match="does not say how many heads"):
        dropkey.apply(dropkey.register(Shapeless)(), dropkey.ReAttention())
    swin = timm.create_model("swin_tiny_patch4_window7_224", img_size=56, embed_dim=24, depths=(1, 1), num_heads=(1, 1))
    with pytest.raises(dropkey.DropKeyError, match="this model has none; kinds: window"):
        dropkey.apply(swin, dropkey.ReAttention())
    twice = dropkey.register(Twice)().double()
    dropkey.apply(twice, dropkey.ReAttention())
    with pytest.raises(dropkey.DropKeyError, match="no plain self-attention"):
        twice(tokens)


def test_deepvit_has_its_own():
    import dropkey.models

    model = timm.create_model("deepvit_16b", depth=1, device="meta")
    with pytest.raises(dropkey.DropKeyError, match="has a 'reattention' of its own"):
        dropkey.apply(model, dropkey.ReAttention())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "bach"}, "did you mean 'batch'"),
        ({"last": 0}, "1 or more"),
        ({"last": 1, "blocks": [0]}, "not both"),
        ({"blocks": [-1]}, "a place in blocks must be a whole number, 0 or more, got -1"),
        ({"blocks": []}, "different places"),
        ({"blocks": [1, 1]}, "different places"),
    ],
)
def test_descriptions_that_make_no_sense(arguments, message):
    with pytest.raises(dropkey.DropKeyError, match=message):
        dropkey.ReAttention(**arguments)
