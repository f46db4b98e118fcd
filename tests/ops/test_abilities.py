"""What a backend may do beside attending: whoever has an ability is asked for it, and no caller changes."""

import pytest
import torch
from conftest import tiny_vit

import dropkey
from dropkey.ops import dispatch
from dropkey.ops.backend import Backend
from dropkey.ops.call import AttentionCall, Draw
from dropkey.ops.cpu import library
from dropkey.ops.mixing import Mixing
from dropkey.ops.projection import Projection
from dropkey.patterns import Geometry

needs_kernel = pytest.mark.skipif(library.unavailable() is not None, reason=str(library.unavailable()))


class Plain(Backend):
    """Attends, and has no other ability."""

    name = "plain"

    def unavailable(self):
        return None

    def refuses(self, call):
        return "it rests"

    def attend(self, call):
        raise AssertionError


class Able(Plain):
    """Has one ability, lent by another backend, and counts its use."""

    name = "able"

    def __init__(self, ability, lender):
        self.uses, self.reason = 0, None
        setattr(self, "refuses_" + ability[0], lambda *_: None)
        setattr(self, ability[1], lambda *arguments: self.use(getattr(lender, ability[1]), arguments))

    def unavailable(self):
        return self.reason

    def use(self, method, arguments):
        self.uses += 1
        return method(*arguments)


def draws_a_mask():
    return dropkey.keep_mask(2, 3, 5, 7, drop_ratio=0.5, seed=4)


def trains(*regularizers):
    torch.manual_seed(0)
    model = tiny_vit()
    for regularizer in regularizers:
        dropkey.apply(model, regularizer)
    return model(torch.randn(2, 3, 32, 32))


def selects_tokens():
    return trains(dropkey.DropKey(0.5, schedule="constant", pattern="token"))


def mixes_maps():
    return trains(dropkey.ReAttention())


@needs_kernel
@pytest.mark.parametrize(
    ("ability", "lender", "run"),
    [
        (("mask", "draw_keep"), "reference", draws_a_mask),
        (("tokens", "kept_tokens"), "cpu", selects_tokens),
        (("mixing", "attend_mixed"), "cpu", mixes_maps),
        (("projection", "attend_projected"), "cpu", selects_tokens),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_who_has_an_ability_is_asked_for_it(ability, lender, run, monkeypatch):
    want, able = run(), Able(ability, dispatch.BACKENDS[lender])
    monkeypatch.setattr(dispatch, "BACKENDS", {able.name: able, **dispatch.BACKENDS})
    assert torch.equal(run(), want)
    assert able.uses > 0
    able.uses, able.reason = 0, "it is Sunday"
    assert torch.equal(run(), want)
    assert not able.uses


def test_who_has_none_says_so():
    q, weight = torch.randn(1, 2, 3, 16), torch.randn(48, 16)
    call, draw = AttentionCall(q, q, q, None, False, 1.0, None), Draw.of(dropkey.Token(), 0.5, 4, q.device)
    layers = Projection(torch.randn(1, 3, 16), weight, None, weight[:16], None, 1, 1.0)
    mixing = Mixing(torch.eye(2), torch.ones(2), torch.zeros(2), 1e-5)
    pairs = [
        (Plain().refuses_mask(draw, (1, 2, 3, 3)), lambda: Plain().draw_keep(draw, (1, 2, 3, 3))),
        (Plain().refuses_tokens(draw), lambda: Plain().kept_tokens(draw, Geometry(1, 2, 3, 3))),
        (Plain().refuses_mixing(call), lambda: Plain().attend_mixed(call, mixing)),
        (Plain().refuses_projection(layers), lambda: Plain().attend_projected(layers, torch.zeros(1, 1).long())),
    ]
    for refusal, use in pairs:
        assert refusal
        with pytest.raises(dropkey.BackendError, match="'plain' has no such ability"):
            use()


def test_why_nobody_can_is_said_for_each():
    q = torch.randn(1, 2, 3, 4)
    call = AttentionCall(q, q, q, torch.zeros(3, 3), False, 1.0, None)
    reason = dispatch.refuses_mixing(call)
    assert "cpu: keys are forbidden or biased" in reason
    assert "triton: it mixes no maps" in reason
    with pytest.raises(dropkey.BackendError, match="cpu: keys are forbidden or biased"):
        dispatch.attend_mixed(call, Mixing(torch.eye(2), torch.ones(2), torch.zeros(2), 1e-5))
