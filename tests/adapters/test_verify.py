"""verify proves what it says: every planted fault is found, and nothing of the model is changed."""

import random

import numpy as np
import pytest
import torch
from conftest import tiny_vit
from torch import nn

import dropkey
from dropkey.adapters import site as site_module
from dropkey.adapters.listeners import recording
from dropkey.adapters.slots import dropout as dropout_slot
from dropkey.ops.call import AttentionCall
from dropkey.ops.dispatch import attend as real_attend


@pytest.fixture
def handle(vit):
    return dropkey.apply(vit, dropkey.DropKey(0.4, schedule="constant"))


def replace_attend(monkeypatch, change):
    """Let every site run ``change(call)`` instead of the call itself."""
    real = site_module.attend
    monkeypatch.setattr(site_module, "attend", lambda call, backend: real(change(call), backend))


FAULTS = {
    "nothing is dropped": lambda call: call._replace(draw=None),
    "another mask": lambda call: call._replace(draw=call.draw._replace(seed=call.draw.seed + 1)),
    "another ratio": lambda call: call._replace(draw=call.draw._replace(drop_ratio=call.draw.drop_ratio * 1.5)),
    "another pattern": lambda call: call._replace(draw=call.draw._replace(pattern=dropkey.Column())),
    "another scale": lambda call: call._replace(scale=call.scale * 1.1),
    "query and key exchanged": lambda call: call._replace(query=call.key, key=call.query),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_finds_planted_faults(fault, handle, images, monkeypatch):
    replace_attend(monkeypatch, FAULTS[fault])
    with pytest.raises(dropkey.SiteError, match=r"blocks\.\d\.attn differs from the reference"):
        handle.verify(images)


@pytest.mark.parametrize("renormalize", [False, True])
def test_finds_dropout_that_drops_nothing(renormalize, vit, images, monkeypatch):
    handle = dropkey.apply(vit, dropkey.AttentionDropout(0.4, schedule="constant", renormalize=renormalize))
    monkeypatch.setattr(dropout_slot, "attend_with_dropout", lambda call, ratio, keep: real_attend(call))
    with pytest.raises(dropkey.SiteError, match=r"blocks\.0\.attn drops no attention weights"):
        handle.verify(images)


class HalfAsMany(dropkey.Column):
    """Everything agrees on its mask, but the mask is not what the ratio says."""

    def keep(self, seed, drop_ratio, geometry):
        return super().keep(seed, drop_ratio / 2, geometry)


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
def test_finds_a_draw_of_another_share(backend, vit, images):
    handle = dropkey.apply(vit, dropkey.DropKey(0.6, schedule="constant", pattern=HalfAsMany()), backend=backend)
    with pytest.raises(dropkey.SiteError, match=r"drops 0\.[23]\d+ of its keys, not 0\.6000"):
        handle.verify(images)


def test_finds_a_site_that_acts_in_evaluation(handle, vit, images):
    vit.blocks[1].attn._dropkey_site.slots[0].sampling = True
    with pytest.raises(dropkey.SiteError, match=r"blocks\.1\.attn acts in evaluation mode"):
        handle.verify(images)


def test_finds_a_site_that_is_never_run(handle, vit, images):
    class Skip(nn.Module):
        def __init__(self, block):
            super().__init__()
            self.block = block

        def forward(self, x, **_):
            return x

    vit.blocks[2] = Skip(vit.blocks[2])
    with pytest.raises(dropkey.SiteError, match=r"blocks\.2\.attn was not reached in training mode"):
        handle.verify(images)


def test_disabled_is_said(handle, images):
    handle.disable()
    with pytest.raises(dropkey.SiteError, match="disabled"):
        handle.verify(images)


def test_restores_modes_buffers_and_random_state(images):
    model = nn.Sequential(nn.BatchNorm2d(3), tiny_vit())
    model.eval()
    model[1].blocks[0].train()
    handle = dropkey.apply(model, dropkey.DropKey(0.4))
    modes = [module.training for module in model.modules()]
    buffers = [buffer.clone() for buffer in model.buffers()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    handle.verify(images)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(one, other) for one, other in zip(buffers, model.buffers(), strict=True))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_prints_a_table(handle, images):
    handle.drop_ratios = [0.4, 0.2, 0.0]
    lines = str(handle.verify(images)).splitlines()
    assert lines[0].split("  ")[0] == "site"
    assert "drops as it should" in lines[1]
    assert "untouched (ratio 0)" in lines[3]
    assert "In evaluation mode the model is untouched" in lines[4]


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_every_dtype(backend, dtype, vit, images):
    vit.to(dtype)
    dropkey.apply(vit, dropkey.DropKey(0.4), backend=backend).verify(images.to(dtype))


def test_a_call_is_what_the_site_was_given(handle, vit, images):
    """The record that verify compares is the model's own query, key and value."""
    with recording([vit.blocks[0].attn]) as (records,):
        vit(images)
    (record,) = records
    assert isinstance(record.call, AttentionCall)
    assert record.call.query.shape == (2, 3, 65, 16)
    assert record.call.scale == 16**-0.5
