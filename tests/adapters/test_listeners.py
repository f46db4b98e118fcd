"""Listeners: any number of them hear the same calls, change nothing, and leave without a trace."""

import copy
import pickle

import pytest
import torch
from conftest import tiny_vit
from torch import nn

import dropkey
from dropkey.adapters.listeners import Recorder, listening, listening_everywhere, recording
from dropkey.adapters.maps import attention_maps
from dropkey.adapters.site import site_of


def attentions(model):
    return [block.attn for block in model.blocks]


def every_call(found):
    return Recorder(always=True)


def outputs(model, images):
    torch.manual_seed(0)
    return model(images)


def test_two_listeners_hear_the_same_records(vit, images):
    dropkey.apply(vit, dropkey.DropKey(0.3, schedule="constant"))
    modules = attentions(vit)
    with recording(modules) as outer:
        with recording(modules) as inner:
            vit(images)
        vit(images)
    assert [len(heard) for heard in inner] == [1, 1, 1]
    assert [len(heard) for heard in outer] == [2, 2, 2]
    assert all(one[0] is other[0] for one, other in zip(inner, outer, strict=True))


def test_a_listener_is_told_of_none_but_its_own_module(vit, images):
    dropkey.apply(vit, dropkey.DropKey(0.3, schedule="constant"))
    with recording([vit.blocks[1].attn, vit.blocks[1].attn, vit.blocks[0].attn]) as records:
        vit.blocks[1](vit.blocks[0].norm1(torch.randn(2, 65, 48)))
    assert [len(heard) for heard in records] == [1, 1, 0]


@pytest.mark.parametrize("pattern", ["element", "token"])
@pytest.mark.parametrize("mixes", [False, True])
def test_maps_nest_and_stay_the_same_when_others_listen(mixes, pattern, vit, images):
    dropkey.apply(vit, dropkey.DropKey(0.4, schedule="constant", pattern=pattern))
    if mixes:
        dropkey.apply(vit, dropkey.ReAttention())
    torch.manual_seed(0)
    with attention_maps(vit) as alone:
        vit(images)
    torch.manual_seed(0)
    with attention_maps(vit) as outer, recording(attentions(vit)) as records, attention_maps(vit) as inner:
        vit(images)
    for one, two, three, (record,) in zip(alone, outer, inner, records, strict=True):
        assert torch.equal(one, two)
        assert two is three is record.attn_map
    assert outer[0].requires_grad


@pytest.mark.parametrize("regularizer", [dropkey.DropKey(0.4), dropkey.AttentionDropout(0.4), dropkey.ReAttention()])
def test_verify_works_while_somebody_listens(regularizer, vit, images):
    handle = dropkey.apply(vit, regularizer)
    with listening_everywhere(vit, every_call), recording(attentions(vit)) as records:
        handle.verify(images)
    assert all(records)
    with attention_maps(vit) as maps:
        vit(images)
    assert len(maps) == 3


def test_verify_sees_the_fast_path_while_another_listens(vit, images):
    """The call that is masked for comparison is heard by nobody."""
    handle = dropkey.apply(vit, dropkey.DropKey(0.4, schedule="constant", pattern="token"))
    with recording(attentions(vit)) as records:
        handle.verify(images)
    assert [len(heard) for heard in records] == [1, 1, 1]
    for (record,) in records:
        assert record.attn_map is None
        torch.testing.assert_close(record.module_out, record.module_masked)


@pytest.mark.parametrize("training", [False, True])
def test_modules_without_a_regularizer(training, vit, images):
    vit.train(training)
    before = [type(module) for module in vit.modules()]
    heard = {}

    def listener(found):
        heard[found.name] = Recorder(always=True)
        return heard[found.name]

    want = vit(images)
    with listening_everywhere(vit, listener, where=lambda found: found.block_index > 0):
        out = vit(images)
        assert site_of(vit.blocks[0].attn) is None
    assert torch.equal(out, want)
    assert list(heard) == ["blocks.1.attn", "blocks.2.attn"]
    for recorder in heard.values():
        (record,) = recorder.records
        assert record.call.query.shape == (2, 3, 65, 16)
        assert not record.drops
    assert [type(module) for module in vit.modules()] == before
    assert not any("_dropkey_site" in module.__dict__ for module in vit.modules())


def test_the_handle_may_go_before_the_listener(vit, images):
    before = type(vit.blocks[0].attn)
    handle = dropkey.apply(vit, dropkey.DropKey(0.4, schedule="constant"))
    recorder = Recorder(always=True)
    with listening([(vit.blocks[0].attn, recorder)]):
        vit(images)
        handle.remove()
        vit(images)
        assert type(vit.blocks[1].attn) is before
    assert [record.drops for record in recorder.records] == [True, False]
    assert type(vit.blocks[0].attn) is before
    assert site_of(vit.blocks[0].attn) is None


def test_the_handle_may_come_after_the_listener(vit, images):
    recorders = []

    def listener(found):
        recorders.append(Recorder(always=True))
        return recorders[-1]

    with listening_everywhere(vit, listener):
        handle = dropkey.apply(vit, dropkey.DropKey(0.4, pattern="block"), grid_size=(4, 16))
        assert site_of(vit.blocks[0].attn).grid_size == (4, 16)
        with pytest.raises(dropkey.SiteError, match="is on this model already"):
            dropkey.apply(vit, dropkey.DropKey(0.4))
        vit(images)
    assert [len(recorder.records) for recorder in recorders] == [1, 1, 1]
    assert len(handle.sites) == 3
    handle.remove()
    assert site_of(vit.blocks[0].attn) is None


def test_nobody_listens_to_a_copy(vit, images):
    original = type(vit.blocks[1].attn)
    dropkey.apply(vit, dropkey.DropKey(0.4, schedule="constant"), where=lambda found: found.block_index == 0)
    recorders = []

    def listener(found):
        recorders.append(Recorder(always=True))
        return recorders[-1]

    with listening_everywhere(vit, listener):
        for other in (copy.deepcopy(vit), pickle.loads(pickle.dumps(vit))):
            assert type(other.blocks[1].attn) is original
            assert site_of(other.blocks[1].attn) is None
            assert site_of(other.blocks[0].attn).listeners == ()
            assert torch.equal(outputs(other, images), outputs(other, images))
    assert [recorder.records for recorder in recorders] == [[], [], []]


def test_it_ends_with_an_error_as_well(vit):
    before = type(vit.blocks[0].attn)
    with pytest.raises(ValueError, match="not enough values"), listening_everywhere(vit, every_call):
        vit(torch.randn(2, 7))
    assert type(vit.blocks[0].attn) is before


def test_what_nobody_can_listen_to(vit):
    with pytest.raises(dropkey.SiteError, match="found no supported attention module in this Linear"):
        listening_everywhere(nn.Linear(2, 2), every_call).__enter__()
    with pytest.raises(dropkey.SiteError, match="it is no site of dropkey"):
        recording([vit.blocks[0].attn]).__enter__()
    vit.blocks[2].attn.forward = lambda x, **_: x
    with pytest.raises(dropkey.SiteError, match="has a forward of its own"):
        listening_everywhere(vit, every_call).__enter__()
    assert site_of(vit.blocks[0].attn) is None


def test_print_of_a_model_says_what_acts():
    model = tiny_vit(depth=1)
    bare = str(model)
    handle = dropkey.apply(model, dropkey.DropKey(0.2, schedule="constant"))
    assert "(attn): AttentionSite(\n        dropkey: drop_ratio=0.2, element\n" in str(model)
    other = dropkey.apply(model, dropkey.AttentionDropout(0.25, schedule="constant", renormalize=True))
    third = dropkey.apply(model, dropkey.ReAttention(norm="layer"))
    assert (
        "dropkey: drop_ratio=0.2, element, attention dropout: drop_ratio=0.25, renormalized, re-attention: norm=layer\n"
    ) in str(model)
    other.remove()
    third.remove()
    handle.disable()
    assert "dropkey: drop_ratio=0.2, element, disabled\n" in str(model)
    handle.remove()
    with listening_everywhere(model, every_call):
        assert "dropkey" not in str(model)
    assert str(model) == bare


def test_print_keeps_what_a_class_says_itself():
    class Said(nn.Module):
        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x)

        def extra_repr(self):
            return "heads=1"

    module = dropkey.register(Said)()
    dropkey.apply(module, dropkey.DropKey(0.3, pattern=dropkey.Block(5)), grid_size=(8, 8))
    assert str(module) == "SaidSite(heads=1, dropkey: drop_ratio=0.3, block, window_size=5)"
