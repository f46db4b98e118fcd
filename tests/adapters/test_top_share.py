"""DropKey among the keys with the largest logits of each query: a NumPy oracle, who can run it, and its proof."""

import copy
import json

import numpy as np
import pytest
import torch
from conftest import tiny_vit
from torch import nn
from torch.nn import functional as F

import dropkey
from dropkey.adapters.slots import dropkey as slot_file
from dropkey.cli import main
from dropkey.ops.call import AttentionCall
from dropkey.ops.top_keys import top_keys

SHARE, RATIO = 0.3, 0.5


@dropkey.register
class PlainAttention(nn.Module):
    """Query, key and value as they come, so that they are easy to write in NumPy."""

    def forward(self, qkv, attn_mask=None):
        return F.scaled_dot_product_attention(*qkv.unbind(0), attn_mask)


@pytest.fixture
def qkv():
    return torch.randn(3, 2, 3, 9, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def oracle(qkv, keep, count, allowed=None, bias=0.0):
    """In NumPy: rank the allowed keys of each query, drop those of the first ``count`` that the mask drops."""
    q, k, v = qkv.numpy()
    logits = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]) + bias
    logits = logits if allowed is None else np.where(allowed, logits, -np.inf)
    rank = np.argsort(np.argsort(-logits, axis=-1), axis=-1)
    logits = np.where(~keep & (rank < count), -1e300, logits)
    logits = logits if allowed is None else np.where(allowed, logits, -np.inf)
    attn = np.exp(logits - logits.max(-1, keepdims=True))
    return attn / attn.sum(-1, keepdims=True) @ v


def applied(top_share=SHARE, ratio=RATIO, **arguments):
    model = nn.Sequential(PlainAttention()).train()
    return model, dropkey.apply(model, dropkey.DropKey(ratio, "constant", top_share=top_share), **arguments)


def drawn(ratio=RATIO):
    torch.manual_seed(5)
    return dropkey.keep_mask(2, 3, 9, 9, drop_ratio=ratio).numpy()


@pytest.mark.parametrize("backend", ["auto", "reference", "sdpa"])
@pytest.mark.parametrize(("share", "count"), [(0.3, 3), (0.01, 1), (0.5, 4), (1.0, 9)])
def test_formula(qkv, share, count, backend):
    model, _ = applied(share, backend=backend)
    keep = drawn()
    torch.manual_seed(5)
    np.testing.assert_allclose(model(qkv).numpy(), oracle(qkv, keep, count), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(model.eval()(qkv), F.scaled_dot_product_attention(*qkv.unbind(0)))


def test_biases_count_and_forbidden_keys_come_last(qkv):
    model, _ = applied()
    generator = torch.Generator().manual_seed(2)
    keep, allowed = drawn(), torch.rand(2, 1, 9, 9, generator=generator) < 0.5
    allowed[..., 0] = True
    bias = 3 * torch.randn(2, 1, 9, 9, generator=generator, dtype=torch.float64)
    torch.manual_seed(5)
    out = model[0](qkv, allowed)
    np.testing.assert_allclose(out.numpy(), oracle(qkv, keep, 3, allowed.numpy()), rtol=1e-9, atol=1e-10)
    torch.manual_seed(5)
    np.testing.assert_allclose(model[0](qkv, bias).numpy(), oracle(qkv, keep, 3, bias=bias.numpy()), rtol=1e-9)


def test_gradients_are_those_of_the_masked_attention(qkv):
    model, _ = applied()
    keep = torch.from_numpy(drawn())
    leaves = [qkv.clone().requires_grad_(), qkv.clone().requires_grad_()]
    torch.manual_seed(5)
    model(leaves[0]).square().sum().backward()
    logits = (leaves[1][0] @ leaves[1][1].mT) / 2
    third = logits.sort(-1, descending=True).values[..., 2:3]
    plain = logits.masked_fill(~keep & (logits >= third), -torch.inf).softmax(-1) @ leaves[1][2]
    plain.square().sum().backward()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad)


@pytest.mark.parametrize("fused", [True, False])
def test_proof_table_and_settings(fused, images):
    vit = tiny_vit()
    for block in vit.blocks:
        block.attn.fused_attn = fused
    handle = dropkey.apply(vit, dropkey.DropKey(RATIO, "constant", top_share=0.1))
    for check in handle.verify(images).checks:
        assert abs(check.dropped_share - RATIO) < 0.1
    assert ("auto (sdpa)" if fused else "its own softmax") in str(handle)
    assert "top_share=0.1" in repr(vit.blocks[0].attn)
    state = json.loads(json.dumps(handle.state_dict()))
    assert dropkey.apply(tiny_vit(), state).regularizer == handle.regularizer
    assert dropkey.handle(copy.deepcopy(vit)).regularizer.top_share == 0.1
    assert dropkey.monte_carlo(vit, images, samples=2).std.max() > 0


def test_beside_re_attention_and_under_capture(images):
    vit = tiny_vit().train()
    handle = dropkey.apply(vit, dropkey.DropKey(RATIO, "constant", top_share=0.1))
    dropkey.apply(vit, dropkey.ReAttention())
    handle.verify(images)
    torch.manual_seed(0)
    with dropkey.capture(vit, stage="dropped") as after:
        vit(images)
    torch.manual_seed(0)
    with dropkey.capture(vit, stage="softmax") as before:
        vit(images)
    gone = after["blocks.0.attn"] == 0
    count = round(0.1 * gone.shape[-1])
    assert 0 < gone.sum(-1).max() <= count
    ranks = before["blocks.0.attn"].argsort(-1, descending=True).argsort(-1)
    assert ranks[gone].max() < count


@pytest.mark.parametrize("wrong", ["others", "too many"])
def test_the_proof_notices_other_candidates(wrong, images, monkeypatch):
    others = {
        "others": lambda call, share: top_keys(call._replace(query=-call.query), share),
        "too many": lambda call, share: top_keys(call, 2 * share),
    }
    monkeypatch.setattr(slot_file, "top_keys", others[wrong])
    handle = dropkey.apply(tiny_vit(), dropkey.DropKey(RATIO, "constant", top_share=0.1))
    with pytest.raises(dropkey.SiteError, match=r"other keys than the 0\.1 of them"):
        handle.verify(images)


def test_a_kernel_that_is_asked_for_refuses_in_words(images):
    vit = tiny_vit().train()
    dropkey.apply(vit, dropkey.DropKey(RATIO, top_share=0.1), backend="cpu")
    with pytest.raises(dropkey.BackendError, match="depends on their logits"):
        vit(images)


def test_maps_that_share_their_keys_are_refused():
    model = tiny_vit(attn_layer="diff", depth=1)
    with pytest.raises(dropkey.SiteError, match="maps a head"):
        dropkey.apply(model, dropkey.DropKey(RATIO, top_share=0.1))


def test_compiled(images):
    vit = tiny_vit().train()
    dropkey.apply(vit, dropkey.DropKey(RATIO, "constant", top_share=0.1))
    torch.manual_seed(5)
    eager = vit(images)
    torch.manual_seed(5)
    torch.testing.assert_close(torch.compile(vit, fullgraph=True, backend="aot_eager")(images), eager)


@pytest.mark.parametrize("share", [0, -0.1, 1.5, float("nan"), True, "much"])
def test_what_is_no_share(share):
    with pytest.raises(dropkey.ArgumentError, match="top_share"):
        dropkey.DropKey(0.3, top_share=share)


def test_other_patterns_are_refused():
    with pytest.raises(dropkey.ArgumentError, match="pattern 'element', not Token"):
        dropkey.DropKey(0.3, pattern="token", top_share=0.5)


def test_a_call_of_one_query_and_key():
    q = torch.randn(1, 1, 1, 4)
    assert top_keys(AttentionCall(q, q, q, None, False, 0.5, None), 0.01).all()


@pytest.mark.usefixtures("few_digits")
def test_it_is_an_arm_of_a_comparison(tmp_path):
    arms = ["dropkey", "dropkey:top-share=0.2"]
    assert main(["compare", "--arms", *arms, "--seeds", "1", "--epochs", "1", "--output", str(tmp_path)]) == 0
    losses = [json.loads(file.read_text())["final_val_loss"] for file in tmp_path.glob("*/seed-0/summary.json")]
    assert len(set(losses)) == 2
    config = next(tmp_path.glob("*top*/seed-0/config.yaml")).read_text()
    assert "top_share: 0.2" in config
