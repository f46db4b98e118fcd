"""Settings of a handle: plain data, and the same regularizer again from it."""

import copy
import io
import json

import numpy as np
import pytest
import torch
import yaml
from conftest import tiny_vit
from torch import nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.stateful import Stateful

import dropkey


def through_json(state):
    return json.loads(json.dumps(state))


def through_yaml(state):
    return yaml.safe_load(yaml.safe_dump(state))


def through_torch(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


each_way = pytest.mark.parametrize("through", [through_json, through_yaml, through_torch])
each_regularizer = pytest.mark.parametrize(
    "regularizer",
    [
        dropkey.DropKey(0.3),
        dropkey.DropKey(0.3, schedule="constant", pattern="token"),
        dropkey.DropKey(schedule=[0.1, 0.2, 0.7], pattern=dropkey.Cross(5)),
        dropkey.AttentionDropout(0.2, renormalize=True),
        dropkey.ReAttention(),
        dropkey.ReAttention(blocks=[0, 2], norm="layer"),
        dropkey.ReAttention(last=1),
    ],
    ids=str,
)


def test_what_it_holds(vit):
    handle = dropkey.apply(vit, dropkey.DropKey(0.3, pattern=dropkey.Block(5)))
    handle.drop_ratios = [0.1, 0.25, 0.0]
    handle.disable()
    assert handle.state_dict() == {
        "regularizer": {
            "name": "DropKey",
            "drop_ratio": 0.3,
            "schedule": "linear_decay",
            "pattern": {"name": "block", "window_size": 5},
            "top_share": 1.0,
        },
        "enabled": False,
        "drop_ratios": {"blocks.0.attn": 0.1, "blocks.1.attn": 0.25, "blocks.2.attn": 0.0},
    }


def test_what_it_holds_of_others(vit):
    dropout = dropkey.apply(vit, dropkey.AttentionDropout(0.2, schedule=[0.2, 0.1, 0.0]))
    mixing = dropkey.apply(vit, dropkey.ReAttention(blocks=[1]))
    options = {"drop_ratio": 0.2, "schedule": [0.2, 0.1, 0.0], "renormalize": False}
    assert dropout.state_dict()["regularizer"] == {"name": "AttentionDropout", **options}
    assert mixing.state_dict() == {
        "regularizer": {"name": "ReAttention", "last": None, "norm": "batch", "blocks": [1]},
        "enabled": True,
        "drop_ratios": {"blocks.1.attn": 0.0},
    }


@each_way
@each_regularizer
def test_the_same_again(regularizer, through, images):
    model = tiny_vit()
    handle = dropkey.apply(model, regularizer)
    other = tiny_vit()
    again = dropkey.apply(other, through(handle.state_dict()))
    assert again.regularizer == regularizer
    assert again.sites == handle.sites
    assert again.enabled
    other.load_state_dict(model.state_dict())
    again.verify(images)
    outs = []
    for each in (model, other):
        torch.manual_seed(7)
        outs.append(each(images))
    assert torch.equal(*outs)
    again.remove()
    assert list(other.state_dict()) == list(tiny_vit().state_dict())


def test_changed_disabled_and_chosen_sites(images):
    handle = dropkey.apply(tiny_vit(), dropkey.DropKey(0.3), where=lambda site: site.block_index > 0)
    handle.drop_ratios = [0.4, 0.6]
    handle.disable()
    again = dropkey.apply(tiny_vit(), handle.state_dict())
    assert [(site.name, site.drop_ratio) for site in again.sites] == [("blocks.1.attn", 0.4), ("blocks.2.attn", 0.6)]
    assert not again.enabled
    again.enable()
    again.verify(images)


def test_a_function_becomes_its_ratios():
    handle = dropkey.apply(tiny_vit(), dropkey.DropKey(0.3, schedule=lambda ratio, depth: [ratio / 2] * depth))
    handle.drop_ratios = [0.4, 0.5, 0.6]
    state = through_json(handle.state_dict())
    assert state["regularizer"]["schedule"] == [0.15] * 3
    assert dropkey.apply(tiny_vit(), state).drop_ratios == (0.4, 0.5, 0.6)


@each_way
def test_numbers_of_numpy(through):
    handle = dropkey.apply(tiny_vit(), dropkey.DropKey(np.float32(0.25), schedule=np.array([0.5, 0.25, 0.0])))
    assert dropkey.apply(tiny_vit(), through(handle.state_dict())).drop_ratios == (0.5, 0.25, 0.0)


def test_own_dropout_gives_way_to_what_was_restored():
    model = tiny_vit(attn_drop_rate=0.1)
    handle = dropkey.apply(model, dropkey.DropKey(0.3))
    handle.disable()
    other = tiny_vit(attn_drop_rate=0.1)
    again = dropkey.apply(other, handle.state_dict())
    assert other.blocks[0].attn.attn_drop.p == 0.1
    again.enable()
    assert other.blocks[0].attn.attn_drop.p == 0.0
    again.load_state_dict(handle.state_dict())
    assert other.blocks[0].attn.attn_drop.p == 0.1


def test_a_handle_goes_back(vit, images):
    handle = dropkey.apply(vit, dropkey.DropKey(0.3, pattern=dropkey.Block(3)))
    before = copy.deepcopy(handle.state_dict())
    later = dropkey.handle(copy.deepcopy(vit))
    later.load_state_dict({**before, "enabled": False, "drop_ratios": dict.fromkeys(before["drop_ratios"], 0.5)})
    assert (later.enabled, later.drop_ratios) == (False, (0.5,) * 3)
    later.load_state_dict(before)
    assert (later.state_dict(), handle.state_dict()) == (before, before)
    later.verify(images)


def test_a_handle_takes_over_options(vit, images):
    handle = dropkey.apply(vit, dropkey.DropKey(0.1))
    state = dropkey.apply(tiny_vit(), dropkey.DropKey(0.4, schedule="constant", pattern="column")).state_dict()
    handle.load_state_dict(state)
    assert handle.regularizer == dropkey.DropKey(0.4, schedule="constant", pattern="column")
    assert handle.drop_ratios == (0.4,) * 3
    handle.verify(images)


def test_settings_of_something_else_are_refused(vit):
    handle = dropkey.apply(vit, dropkey.DropKey(0.3))
    before = handle.state_dict()
    dropout = dropkey.apply(tiny_vit(), dropkey.AttentionDropout(0.3)).state_dict()
    with pytest.raises(dropkey.ArgumentError, match=r"settings of AttentionDropout.*this handle is of DropKey"):
        handle.load_state_dict(dropout)
    deeper = dropkey.apply(tiny_vit(depth=4), dropkey.DropKey(0.2)).state_dict()
    with pytest.raises(dropkey.ArgumentError, match=r"do not match this model, see blocks\.3\.attn"):
        handle.load_state_dict(deeper)
    assert handle.state_dict() == before
    layer = dropkey.apply(tiny_vit(), dropkey.ReAttention(norm="layer")).state_dict()
    with pytest.raises(dropkey.ArgumentError, match=r"norm='layer'.*this handle is of .*norm='batch'"):
        dropkey.apply(tiny_vit(), dropkey.ReAttention()).load_state_dict(layer)


def test_a_model_without_the_sites_is_refused_and_left_alone():
    state = dropkey.apply(tiny_vit(depth=4), dropkey.DropKey(0.2)).state_dict()
    model = tiny_vit()
    with pytest.raises(dropkey.SiteError, match=r"VisionTransformer has no attention called blocks\.3\.attn"):
        dropkey.apply(model, state)
    with pytest.raises(dropkey.SiteError, match=r"Sequential has no attention.*before it is wrapped"):
        dropkey.apply(nn.Sequential(tiny_vit(depth=4)), state)
    with pytest.raises(dropkey.ArgumentError, match="leave out where"):
        dropkey.apply(model, state, where=lambda site: True)
    assert type(model.blocks[0].attn) is type(tiny_vit().blocks[0].attn)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regularizer": {"name": "DropKeys"}}, r"unknown regularizer 'DropKeys'.*did you mean 'DropKey'"),
        ({"regularizer": {"name": "DropKey", "ratio": 0.3}}, "DropKey in the settings has no option ratio"),
        ({"regularizer": {"name": "DropKey", "pattern": {"name": "blok"}}}, r"unknown pattern 'blok'.*'block'"),
        ({"regularizer": {"name": "DropKey", "drop_ratio": 2}}, r"drop_ratio must be in \[0, 1\)"),
        ({"regularizer": "DropKey"}, "regularizer in the settings must have a name, got 'DropKey'"),
        ({"drop_ratios": {"blocks.0.attn": 1.0}}, r"drop_ratio must be in \[0, 1\)"),
        ({"drop_ratios": [0.3]}, r"drop_ratios must give the ratio of each site by its name, got \[0\.3\]"),
        ({"drop_ratios": {}}, "drop_ratios must give the ratio"),
        ({"more": 1}, "settings of a handle have regularizer, enabled, drop_ratios, got .*more"),
    ],
)
def test_broken_settings_say_what_is_wrong(changes, message, vit):
    state = dropkey.apply(tiny_vit(), dropkey.DropKey(0.2)).state_dict()
    with pytest.raises(dropkey.ArgumentError, match=message):
        dropkey.apply(vit, {**state, **changes})
    with pytest.raises(dropkey.ArgumentError, match="settings of a handle have"):
        dropkey.apply(vit, {})


def test_two_regularizers_side_by_side(images):
    model = tiny_vit()
    states = [dropkey.apply(model, r).state_dict() for r in (dropkey.DropKey(0.3), dropkey.ReAttention(last=2))]
    other = tiny_vit()
    again = [dropkey.apply(other, state) for state in states]
    assert [handle.state_dict() for handle in again] == states
    for handle in again:
        handle.verify(images)


def test_accelerate_keeps_it(vit, tmp_path):
    """Whoever asks for state_dict and load_state_dict can keep a handle in its checkpoints."""
    accelerate = pytest.importorskip("accelerate")
    handle = dropkey.apply(vit, dropkey.DropKey(0.3))
    handle.drop_ratios = [0.5, 0.1, 0.2]
    accelerator = accelerate.Accelerator(cpu=True)
    prepared = accelerator.prepare(vit)
    accelerator.register_for_checkpointing(handle)
    accelerator.save_state(tmp_path)
    handle.drop_ratios = [0.0] * 3
    handle.disable()
    accelerator.load_state(tmp_path)
    assert (handle.drop_ratios, handle.enabled) == ((0.5, 0.1, 0.2), True)
    assert dropkey.handle(prepared).drop_ratios == handle.drop_ratios


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_torchs_distributed_checkpoints_keep_it(vit, tmp_path):
    handle = dropkey.apply(vit, dropkey.DropKey(0.3))
    handle.drop_ratios = [0.5, 0.1, 0.2]
    assert isinstance(handle, Stateful)
    checkpoint.save({"dropkey": handle}, checkpoint_id=tmp_path, no_dist=True)
    handle.drop_ratios = [0.0] * 3
    handle.disable()
    checkpoint.load({"dropkey": handle}, checkpoint_id=tmp_path, no_dist=True)
    assert (handle.drop_ratios, handle.enabled) == ((0.5, 0.1, 0.2), True)
