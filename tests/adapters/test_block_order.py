"""Blocks in the order in which they run: with an example, and what is said without one."""

import copy
import warnings

import hypothesis.strategies as st
import pytest
import torch
from conftest import tiny_vit
from hypothesis import given, settings
from torch import nn
from torch.nn import functional as F

import dropkey

DEPTH = 4


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(16)  # has buffers that a forward pass in training would change

    def forward(self, x):
        q = self.norm(x.transpose(1, 2)).transpose(1, 2).unflatten(-1, (2, 8)).transpose(1, 2)
        return x + F.scaled_dot_product_attention(q, q, q).transpose(1, 2).flatten(2)


class Shuffled(nn.Module):
    """Blocks registered in one order and run in another; a block may be left out where ``skip`` says so."""

    def __init__(self, order) -> None:
        super().__init__()
        for place in order:
            self.add_module(f"block{place}", nn.ModuleList([Attention()]))

    def forward(self, x, skip=None):
        for place in range(DEPTH):
            if place != skip:
                (attention,) = getattr(self, f"block{place}")
                x = attention(x)
        return x


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setattr("dropkey.adapters.registry._REGISTERED", {})
    dropkey.register(Attention)


X = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(0))
REVERSED = tuple(reversed(range(DEPTH)))


def by_name(handle):
    return {site.name: site.drop_ratio for site in handle.sites}


def running(ratios):
    return {f"block{place}.0": ratio for place, ratio in enumerate(ratios)}


@settings(max_examples=24, deadline=None)
@given(order=st.permutations(range(DEPTH)), training=st.booleans())
def test_an_example_orders_blocks_as_they_run(order, training):
    dropkey.register(Attention)
    model = Shuffled(order).train(training)
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(1)
    handle = dropkey.apply(model, dropkey.DropKey(0.3), example=X)
    assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(1))
    want = dropkey.schedules.linear_decay(0.3, DEPTH)
    assert by_name(handle) == running(want)
    assert handle.drop_ratios == tuple(want)  # in the order in which they run
    assert [site.block_index for site in handle.sites] == list(range(DEPTH))
    assert all(module.training == training for module in model.modules())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert handle.verify(X).remark is None
        model.train()(X)


@settings(max_examples=24, deadline=None)
@given(order=st.permutations(range(DEPTH)))
def test_without_an_example_the_first_pass_and_verify_say_whether_the_order_is_another(order):
    dropkey.register(Attention)
    models = [Shuffled(order).train(), Shuffled(order).train()]
    handles = [dropkey.apply(model, dropkey.DropKey(0.3, schedule=[0.4, 0.3, 0.2, 0.1])) for model in models]
    for use in (lambda: models[0](X), lambda: handles[1].verify(X)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            use()
        said = [str(warning.message) for warning in caught if "example=" in str(warning.message)]
        assert bool(said) == (list(order) != sorted(order))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        models[0](X)  # once is enough
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert ("runs before" in str(handles[0].verify(X))) == (list(order) != sorted(order))


def test_nothing_is_said_where_the_order_decides_nothing():
    model = Shuffled(REVERSED).train()
    handle = dropkey.apply(model, dropkey.DropKey(0.3, schedule="constant"))
    model(X)
    assert handle.verify(X).remark is None


def test_nothing_is_said_of_blocks_that_share_a_module():
    model = Shuffled(range(DEPTH)).train()
    model.add_module("block3", model.block0)
    dropkey.apply(model, dropkey.DropKey(0.3))
    model(X)


def test_the_last_blocks_for_re_attention_are_those_that_run_last(images):
    vit = tiny_vit()
    blocks = vit.blocks
    vit.blocks = nn.Sequential(*reversed(blocks))
    vit.forward_features = lambda x, **_: vit.norm(nn.Sequential(*blocks)(vit._pos_embed(vit.patch_embed(x))))
    handle = dropkey.apply(vit, dropkey.ReAttention(last=1), example=images)
    assert [site.name for site in handle.sites] == ["blocks.0.attn"]


def test_an_example_that_leaves_a_block_out_is_refused_and_nothing_applied():
    model = Shuffled(range(DEPTH))
    with pytest.raises(dropkey.SiteError, match=r"does not run block2\.0: .*where="):
        dropkey.apply(model, dropkey.DropKey(0.3), example={"x": X, "skip": 2})
    assert type(model.block0[0]) is Attention
    handle = dropkey.apply(model, dropkey.DropKey(0.3), example=(X, 2), where=lambda f: f.name != "block2.0")
    assert len(handle.sites) == DEPTH - 1


def test_the_order_stays_with_the_model():
    model = Shuffled(REVERSED).train()
    first = dropkey.apply(model, dropkey.AttentionDropout(0.1), example=X)
    second = dropkey.apply(model, dropkey.DropKey(0.3))
    want = running(dropkey.schedules.linear_decay(0.3, DEPTH))
    assert by_name(second) == want
    assert by_name(dropkey.handle(copy.deepcopy(model), dropkey.DropKey)) == want
    state = second.state_dict()
    again = Shuffled(range(DEPTH))
    assert by_name(dropkey.apply(again, state, example=X)) == want
    first.remove()
    second.remove()
    assert not dropkey.handles(model)
