"""Locality self-attention on other people's models: a NumPy oracle, its start, its proof, and its way out again."""

import copy
import json
import pickle

import numpy as np
import pytest
import timm
import torch
from conftest import tiny_vit
from torch import nn
from torch.nn import functional as F

import dropkey
from dropkey.adapters.slots import locality as slot_file
from dropkey.cli import main
from dropkey.models.weights import load_weights


@dropkey.register
class FreeAttention(nn.Module):
    """Query, key and value as they come, so that they are easy to write in NumPy."""

    num_heads = 3

    def forward(self, qkv, attn_mask=None, is_causal=False):
        return F.scaled_dot_product_attention(*qkv.unbind(0), attn_mask, is_causal=is_causal)


GAINS = np.array([0.5, 1.0, 2.0])


@pytest.fixture
def qkv():
    return torch.randn(3, 2, 3, 7, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def oracle(qkv, allowed=True, bias=0.0, masks=True, gains=GAINS):
    """In NumPy, query by query: what it may see, itself only where there is nothing else."""
    q, k, v = qkv.numpy()
    logits = gains[:, None, None] * (q @ k.swapaxes(-1, -2)) / np.sqrt(q.shape[-1]) + bias
    allowed = np.broadcast_to(allowed, logits.shape).copy()
    for index in np.ndindex(*logits.shape[:3]):
        seen = allowed[index].copy()
        seen[index[-1]] = False
        if masks and seen.any():
            allowed[index] = seen
    logits = np.where(allowed, logits, -np.inf)
    attn = np.exp(logits - logits.max(-1, keepdims=True))
    return attn / attn.sum(-1, keepdims=True) @ v


def applied(**arguments):
    model = FreeAttention()
    handle = dropkey.apply(model, dropkey.LocalityAttention(**arguments))
    return with_gains(model.double()), handle


def with_gains(model, gains=GAINS):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("locality.gain"):
                parameter.copy_(torch.as_tensor(gains))
    return model


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("masks", [True, False])
def test_formula(qkv, masks, training):
    model, handle = applied(mask_diagonal=masks)
    np.testing.assert_allclose(model.train(training)(qkv).detach().numpy(), oracle(qkv, masks=masks), rtol=1e-9)
    handle.verify(qkv)


def test_masks_and_biases(qkv):
    """Padding, a causal mask, whose first query may see itself alone, and a bias, which is not scaled."""
    model, _ = applied()
    generator = torch.Generator().manual_seed(2)
    allowed = torch.rand(2, 1, 7, 7, generator=generator) < 0.4
    allowed[..., 2] = True
    bias = torch.randn(1, 3, 7, 7, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        np.testing.assert_allclose(model(qkv, allowed).numpy(), oracle(qkv, allowed.numpy()), rtol=1e-9)
        np.testing.assert_allclose(model(qkv, bias).numpy(), oracle(qkv, bias=bias.numpy()), rtol=1e-9)
        causal = np.tril(np.ones((7, 7), dtype=bool))
        np.testing.assert_allclose(model(qkv, is_causal=True).numpy(), oracle(qkv, causal), rtol=1e-9)


def test_one_token_sees_itself():
    model, _ = applied()
    one = torch.randn(3, 1, 3, 1, 4, dtype=torch.float64)
    torch.testing.assert_close(model(one), one[2])


def test_gradients(qkv):
    model, _ = applied()
    assert torch.autograd.gradcheck(lambda x: model(x), qkv[:, :1, :, :4].clone().requires_grad_())
    model(qkv).square().sum().backward()
    gain = torch.tensor(GAINS, requires_grad=True)
    logits = gain[:, None, None] * (qkv[0] @ qkv[1].mT) / 2
    plain = logits.masked_fill(torch.eye(7, dtype=torch.bool), -torch.inf).softmax(-1) @ qkv[2]
    plain.square().sum().backward()
    torch.testing.assert_close(model.locality.gain.grad, gain.grad)


@pytest.mark.parametrize("fused", [True, False])
def test_the_temperature_alone_starts_as_no_change(fused, images):
    model = tiny_vit().eval()
    for block in model.blocks:
        block.attn.fused_attn = fused
    before = model(images)
    handle = dropkey.apply(model, dropkey.LocalityAttention(mask_diagonal=False))
    torch.testing.assert_close(model(images), before, rtol=1e-6, atol=1e-6)
    handle.remove()
    dropkey.apply(model, dropkey.LocalityAttention())
    assert (model(images) - before).abs().max() > 1e-3


@pytest.mark.parametrize("fused", [True, False])
def test_verify_table_and_settings(fused, images):
    model = tiny_vit()
    for block in model.blocks:
        block.attn.fused_attn = fused
    handle = dropkey.apply(model, dropkey.LocalityAttention())
    with_gains(model)
    for check in handle.verify(images).checks:
        assert check.gains == (0.5, 2.0)
        assert check.largest_on_diagonal == 0
    assert "0.5 to 2      hidden" in str(handle)
    state = json.loads(json.dumps(handle.state_dict()))
    assert dropkey.apply(tiny_vit(), state).regularizer == dropkey.LocalityAttention()
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(again.eval()(images), model.eval()(images))


def test_beside_the_others(images):
    model = tiny_vit().train()
    local = dropkey.apply(model, dropkey.LocalityAttention())
    dropkey.apply(model, dropkey.ReAttention())
    drops = dropkey.apply(model, dropkey.DropKey(0.4, "constant"))
    with_gains(model)
    for handle in dropkey.handles(model):
        handle.verify(images)
    drops.remove()
    dropkey.apply(model, dropkey.AttentionDropout(0.4, "constant"))
    local.verify(images)


def test_remove_takes_everything_away(images):
    model = tiny_vit().eval()
    keys, classes, before = list(model.state_dict()), [type(m) for m in model.modules()], model(images)
    handle = dropkey.apply(model, dropkey.LocalityAttention())
    with_gains(model)
    assert "blocks.1.attn.locality.gain" in model.state_dict()
    handle.disable()
    assert torch.equal(model(images), before)
    handle.enable()
    assert not torch.equal(model(images), before)
    handle.remove()
    assert list(model.state_dict()) == keys
    assert [type(module) for module in model.modules()] == classes
    assert torch.equal(model(images), before)


def test_torch_takes_no_fast_path_around_it_while_anything_is_applied():
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(24, 3, batch_first=True, dropout=0.0).eval()
    x = torch.randn(2, 5, 24)
    with torch.no_grad():
        before = model(x)
        mixing = dropkey.apply(model, dropkey.ReAttention())
        handle = dropkey.apply(model, dropkey.LocalityAttention())
        mixing.remove()
        assert (model(x) - before).abs().max() > 1e-3
        handle.verify(x)
        handle.remove()
        torch.testing.assert_close(model(x), before)


@pytest.mark.parametrize("wrong", ["scale", "mask"])
def test_the_proof_notices(wrong, images, monkeypatch):
    if wrong == "mask":
        monkeypatch.setattr(slot_file, "without_diagonal", lambda call: call)
    else:
        monkeypatch.setattr(slot_file.Temperature, "forward", lambda self, x: x)
    model = tiny_vit()
    handle = dropkey.apply(model, dropkey.LocalityAttention())
    with_gains(model)
    with pytest.raises(dropkey.SiteError, match="attends other than locality self-attention"):
        handle.verify(images)


def test_who_cannot_have_it():
    swin = timm.create_model("swin_tiny_patch4_window7_224")
    with pytest.raises(dropkey.SiteError, match="Locality self-attention needs plain self-attention"):
        dropkey.apply(swin, dropkey.LocalityAttention())
    model = tiny_vit()
    model.blocks[0].attn.locality = 3
    with pytest.raises(dropkey.SiteError, match="has a 'locality' of its own"):
        dropkey.apply(model, dropkey.LocalityAttention())


def test_weights_with_and_without_it(tmp_path):
    plain, local = tiny_vit(), tiny_vit()
    dropkey.apply(local, dropkey.LocalityAttention())
    with_gains(local)
    torch.save(plain.state_dict(), tmp_path / "plain.pt")
    torch.save(local.state_dict(), tmp_path / "local.pt")
    load_weights(local, tmp_path / "local.pt")
    assert local.blocks[0].attn.locality.gain.tolist() == GAINS.tolist()
    assert load_weights(local, tmp_path / "plain.pt") == []
    with pytest.raises(dropkey.DropKeyError, match="--locality-attention full, or temperature"):
        load_weights(plain, tmp_path / "local.pt")


def test_compiled(images):
    model = tiny_vit().train()
    dropkey.apply(model, dropkey.LocalityAttention())
    eager = model(images)
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(images), eager)


FOLDERS = ["none", "none-locality-attention=temperature", "none-locality-attention=full"]


@pytest.mark.usefixtures("few_digits")
def test_it_is_an_arm_that_trains_and_is_evaluated(tmp_path):
    arms = ["none", "none:locality-attention=temperature", "none:locality-attention=full"]
    assert main(["compare", "--arms", *arms, "--seeds", "1", "--epochs", "1", "--output", str(tmp_path)]) == 0
    losses = [json.loads((tmp_path / arm / "seed-0" / "summary.json").read_text())["final_val_loss"] for arm in FOLDERS]
    assert losses[0] != losses[2]
    for arm in FOLDERS[1:]:
        run = tmp_path / arm / "seed-0"
        state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        gains = [value for key, value in state.items() if key.endswith("locality.gain")]
        assert len(gains) == 4
        assert all((gain - 1).abs().max() > 0 for gain in gains)
    assert main(["evaluate", str(run), "--occlusion", ""]) == 0


def test_the_one_that_stays_acts_when_the_other_is_removed():
    """Both keep torch's encoder layer from running around its attention; each takes its own guard along alone."""

    def encoder():
        torch.manual_seed(0)
        layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
        return torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()

    def with_locality(model):
        dropkey.apply(model, dropkey.LocalityAttention())
        for name, parameter in model.named_parameters():
            if "gain" in name:
                parameter.data.fill_(3.0)
        return model

    x = torch.randn(2, 5, 16)
    both, alone = encoder(), with_locality(encoder())
    mixing = dropkey.apply(both, dropkey.ReAttention())
    with_locality(both)
    with torch.no_grad():
        expected = alone(x)
        assert not torch.allclose(expected, encoder()(x), atol=0.1)
        mixing.remove()
        assert torch.equal(both(x), expected)
