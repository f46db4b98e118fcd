"""The baselines: dropout of attention weights, in torch's form and renormalized."""

import pytest
import torch

import dropkey
from dropkey.ops.call import AttentionCall, Draw
from dropkey.ops.dropout import attend_with_dropout, renormalized_dropout
from dropkey.ops.reference import weights


def call(num_keys=9, draw=None, attn_bias=None):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, num_keys, 8, generator=generator, dtype=torch.float64) for _ in range(3))
    return AttentionCall(q, k, v, attn_bias, False, 0.4, draw)


def test_with_the_sum_attached_it_is_dropkey():
    """Kept weights over their own sum equal the softmax over the kept keys: values and gradients."""
    given = call()._replace(query=call().query.requires_grad_())
    keep = dropkey.keep_mask(2, 3, 9, 9, drop_ratio=0.4, seed=1)
    keep |= ~keep.any(-1, keepdim=True)
    kept = weights(given, None) * keep
    attached = (kept / kept.sum(-1, keepdim=True)) @ given.value
    wanted = weights(given, keep) @ given.value
    torch.testing.assert_close(attached, wanted)
    grads = [torch.autograd.grad(out.square().sum(), given.query, retain_graph=True)[0] for out in (attached, wanted)]
    torch.testing.assert_close(*grads)


def test_detached_it_has_dropkeys_values_and_another_gradient():
    given = call()._replace(query=call().query.requires_grad_())
    keep = dropkey.keep_mask(2, 3, 9, 9, drop_ratio=0.4, seed=1)
    keep |= ~keep.any(-1, keepdim=True)
    ours = attend_with_dropout(given, 0.4, keep)
    wanted = weights(given, keep) @ given.value
    torch.testing.assert_close(ours, wanted)
    grads = [torch.autograd.grad(out.square().sum(), given.query, retain_graph=True)[0] for out in (ours, wanted)]
    assert not torch.allclose(*grads)
    # By hand: d(kept / s) with s constant.
    attn = weights(given, None)
    sums = (attn * keep).sum(-1, keepdim=True).detach()
    by_hand = torch.autograd.grad(((attn * keep / sums) @ given.value).square().sum(), given.query)[0]
    torch.testing.assert_close(grads[0], by_hand)


def test_a_row_that_loses_all_weights_is_zero():
    attn = torch.full((1, 1, 2, 3), 1 / 3, requires_grad=True)
    keep = torch.tensor([[False, False, False], [True, False, True]])
    out = renormalized_dropout(attn, keep)
    torch.testing.assert_close(out[0, 0], torch.tensor([[0.0, 0, 0], [0.5, 0, 0.5]]))
    assert torch.autograd.grad(out.sum(), attn)[0].isfinite().all()


def test_torchs_form_is_torchs():
    given = call()
    torch.manual_seed(0)
    ours = attend_with_dropout(given, 0.4, None)
    torch.manual_seed(0)
    theirs = torch.nn.functional.scaled_dot_product_attention(*given[:3], dropout_p=0.4, scale=0.4)
    assert torch.equal(ours, theirs)


def test_torchs_form_scales_by_the_kept_share():
    given = call(num_keys=400)._replace(value=torch.ones(2, 3, 400, 1, dtype=torch.float64))
    assert attend_with_dropout(given, 0.25, None).mean().item() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("renormalize", [False, True])
def test_dropout_after_dropkey(renormalize):
    """Both at once, when a user asks for both: weights of dropped keys are 0 either way."""
    given = call(draw=Draw.of(dropkey.Element(), 0.5, 3, torch.device("cpu")))
    given = given._replace(value=torch.eye(9, dtype=torch.float64).expand(2, 3, 9, 9))
    keep = dropkey.keep_mask(2, 3, 9, 9, drop_ratio=0.5, seed=3)
    out = attend_with_dropout(given, 0.3, torch.ones(1, dtype=torch.bool) if renormalize else None)
    assert (out[~keep & keep.any(-1, keepdim=True)] == 0).all()


def test_causal_with_a_bias_goes_the_long_way():
    bias = torch.randn(9, 9, dtype=torch.float64)
    given = call(attn_bias=bias)._replace(is_causal=True, value=torch.eye(9, dtype=torch.float64).expand(2, 3, 9, 9))
    out = attend_with_dropout(given, 0.3, None)
    assert (out.triu(1) == 0).all()
    assert (out != 0).any()
