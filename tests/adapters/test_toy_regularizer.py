"""A regularizer added by CONTRIBUTING's steps: description, slot, SLOTS, public name and this test are all there is.

It is a part of locality self-attention (Lee et al., 2021, arXiv 2112.13492): no token attends to itself.
"""

import copy
import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from conftest import tiny_vit

import dropkey
from dropkey.adapters.slot import Slot
from dropkey.adapters.slots import SLOTS
from dropkey.ops.reference import weights
from dropkey.regularizers import REGULARIZERS, Regularizer


# 1. A frozen description, in regularizers.py.
@dataclass(frozen=True)
class NoSelf(Regularizer):
    strength: float = 1.0


# 2. A slot, in adapters/slots/.
@dataclass(frozen=True)
class NoSelfCheck:
    name: str
    largest_on_diagonal: float

    header: ClassVar[tuple[str, ...]] = ("largest weight of a token on itself",)
    conclusion: ClassVar[str] = "No token attends to itself."

    def cells(self):
        return [f"{self.largest_on_diagonal:.2g}"]


class NoSelfSlot(Slot):
    stage = "logits"
    acts_in_evaluation = True
    columns = ("strength",)

    def before(self, at):
        num_queries, num_keys = at.call.mask_shape[2:]
        diagonal = torch.eye(num_queries, num_keys, dtype=torch.bool, device=at.call.query.device)
        return at._replace(call=at.call._replace(attn_bias=~diagonal[None, None]))

    def cells(self, module, entry, num_keys):
        return [f"{self.regularizer.strength:g}"]

    def check(self, name, records, noted):
        attn = [weights(record.call, None) for record in records]
        largest = max(a.diagonal(dim1=-2, dim2=-1).max().item() for a in attn)
        expected = attn[-1] @ records[-1].call.value
        if largest > 0 or not torch.allclose(expected, records[-1].out, atol=1e-5):
            raise dropkey.SiteError(f"{name} lets tokens attend to themselves")
        return NoSelfCheck(name, largest)


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(REGULARIZERS, "NoSelf", NoSelf)
    monkeypatch.setitem(SLOTS, NoSelf, NoSelfSlot)  # 3. its line in adapters/slots/__init__.py


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fused", [True, False])
def test_it_acts_and_is_undone(images, training, fused):
    vit = tiny_vit().train(training)
    for block in vit.blocks:
        block.attn.fused_attn = fused
    plain = vit(images)
    handle = dropkey.apply(vit, NoSelf())
    assert not torch.allclose(vit(images), plain)
    handle.disable()
    torch.testing.assert_close(vit(images), plain)
    handle.enable()
    handle.remove()
    torch.testing.assert_close(vit(images), plain)
    assert not dropkey.handles(vit)


def test_verify_table_and_settings(images):
    vit = tiny_vit()
    handle = dropkey.apply(vit, NoSelf(2.0))
    assert [check.largest_on_diagonal for check in handle.verify(images).checks] == [0.0] * 3
    assert "strength" in str(handle)
    state = json.loads(json.dumps(handle.state_dict()))
    again = dropkey.apply(tiny_vit(), state)
    assert again.regularizer == NoSelf(2.0)
    assert dropkey.handle(copy.deepcopy(vit)).regularizer == NoSelf(2.0)


def test_beside_the_others(images):
    vit = tiny_vit().train()
    dropkey.apply(vit, NoSelf())
    dropkey.apply(vit, dropkey.ReAttention())
    drops = dropkey.apply(vit, dropkey.DropKey(0.4, schedule="constant"))
    assert len(dropkey.handles(vit)) == 3
    drops.verify(images)
    with pytest.raises(dropkey.SiteError, match="is on this model already"):
        dropkey.apply(vit, NoSelf())


def test_a_slot_that_does_not_work_is_found(images, monkeypatch):
    monkeypatch.setattr(NoSelfSlot, "before", lambda self, at: at)
    with pytest.raises(dropkey.SiteError, match="lets tokens attend to themselves"):
        dropkey.apply(tiny_vit(), NoSelf()).verify(images)


def test_a_slot_without_a_proof_says_so(images, monkeypatch):
    monkeypatch.delattr(NoSelfSlot, "check")
    with pytest.raises(dropkey.SiteError, match="nothing proves yet what NoSelf does"):
        dropkey.apply(tiny_vit(), NoSelf()).verify(images)
