"""Attention classes of users that compute their softmax themselves, in every form that is in use."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dropkey
from dropkey.patterns import PATTERNS

DIM, HEADS = 16, 4


class Softmax(nn.Module):
    """Attention as in HMR2 and many others; a subclass says how the weights are made."""

    def __init__(self, dim=DIM, heads=HEADS):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.attend = nn.Softmax(dim=-1)

    def weights(self, logits):
        raise NotImplementedError

    def forward(self, x, attn_mask=None):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        logits = q @ k.mT * q.shape[-1] ** -0.5
        return self.proj((self.weights(logits) @ v).transpose(1, 2).flatten(2))


@dropkey.register(softmax=True)
class Functional(Softmax):
    def weights(self, logits):
        return F.softmax(logits, dim=-1)


@dropkey.register(softmax=True)
class Method(Softmax):
    def weights(self, logits):
        return logits.softmax(-1)


@dropkey.register(softmax=True)
class OfTorch(Softmax):
    def weights(self, logits):
        return torch.softmax(input=logits, dim=3)


@dropkey.register(softmax=True)
class Special(Softmax):
    def weights(self, logits):
        return torch.special.softmax(logits, -1)


@dropkey.register(softmax=True)
class Child(Softmax):
    def weights(self, logits):
        return self.attend(logits)


@dropkey.register(softmax=True)
class Wide(Softmax):
    def weights(self, logits):
        return logits.softmax(-1, torch.float64).to(logits.dtype)


@dropkey.register(softmax=True, layout="b")
class Folded(Softmax):
    def forward(self, x):
        batch, num_tokens, dim = x.shape
        q, k, v = self.qkv(x).view(batch, num_tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).flatten(1, 2)
        out = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v
        return self.proj(out.view(batch, self.heads, num_tokens, -1).transpose(1, 2).reshape(batch, num_tokens, dim))


@dropkey.register(layout="b")
class FoldedFused(Folded):
    def forward(self, x):
        batch, num_tokens, dim = x.shape
        q, k, v = self.qkv(x).view(batch, num_tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).flatten(1, 2)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.view(batch, self.heads, num_tokens, -1).transpose(1, 2).reshape(batch, num_tokens, dim))


FORMS = (Functional, Method, OfTorch, Special, Child, Wide, Folded, FoldedFused)
every_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)


def build(form, depth=2):
    torch.manual_seed(0)
    return nn.Sequential(*(form() for _ in range(depth)))


@pytest.fixture
def tokens():
    return torch.randn(3, 17, DIM, generator=torch.Generator().manual_seed(1))


@every_form
@pytest.mark.parametrize("pattern", PATTERNS)
def test_dropkey_is_proved(form, pattern, tokens):
    model = build(form)
    regularizer = dropkey.DropKey(0.4, schedule="constant", pattern=pattern)
    with dropkey.apply(model, regularizer, grid_size=(4, 4), num_prefix_tokens=1) as handle:
        assert [check.num_calls for check in handle.verify(tokens).checks] == [1, 1]
        assert not torch.equal(model(tokens), model(tokens))
    assert type(model[0]) is form


@every_form
@pytest.mark.parametrize("renormalize", [False, True])
def test_dropout_is_proved(form, renormalize, tokens):
    with dropkey.apply(build(form), dropkey.AttentionDropout(0.4, renormalize=renormalize)) as handle:
        handle.verify(tokens)


@every_form
def test_reattention_is_proved_and_starts_as_no_change(form, tokens):
    model = build(form)
    before = model(tokens)
    handle = dropkey.apply(model, dropkey.ReAttention())
    handle.verify(tokens)
    assert torch.equal(model(tokens), before)
    with torch.no_grad():
        model[1].reattention.gate.fill_(0.5)
    handle.verify(tokens)
    assert not torch.allclose(model(tokens), before)
    handle.remove()
    assert torch.equal(model(tokens), before)


@every_form
def test_heads_are_told_from_images(form, tokens, monkeypatch):
    """A folded axis that is taken for images would draw other masks, and verify would not mind."""
    seen = []
    real = dropkey.Token.keep
    monkeypatch.setattr(dropkey.Token, "keep", lambda self, *args: seen.append(args[-1]) or real(self, *args))
    model = build(form, 1)
    backend = "reference"  # which draws where this test listens
    dropkey.apply(model, dropkey.DropKey(0.4, pattern="token", schedule="constant"), backend=backend)
    model(tokens)
    assert seen[0][:4] == (3, HEADS, 17, 17)


def test_without_the_keyword_the_error_names_it(tokens):
    @dropkey.register
    class Forgotten(Method):
        pass

    model = build(Forgotten)
    dropkey.apply(model, dropkey.DropKey(0.4))
    with pytest.raises(dropkey.SiteError, match=r"0 \(Forgotten\) ran without .*register the class with softmax=True"):
        model(tokens)


def test_without_the_layout_the_error_names_it(tokens):
    for base, softmax in ((Folded, True), (FoldedFused, False)):
        unfit = dropkey.register(type("Unfit", (base,), {}), softmax=softmax)
        model = build(unfit)
        dropkey.apply(model, dropkey.DropKey(0.4))
        with pytest.raises(dropkey.SiteError, match="layout='b'"):
            model(tokens)


def test_folded_heads_must_be_known(tokens):
    model = build(Folded)
    del model[0].heads
    with pytest.raises(dropkey.SiteError, match=r"0 \(Folded\) has batch and heads on one axis .* num_heads, .* heads"):
        dropkey.apply(model, dropkey.DropKey(0.4))
    assert type(model[1]) is Folded


def test_heads_that_do_not_divide_the_folded_axis(tokens):
    model = build(Folded)
    dropkey.apply(model, dropkey.DropKey(0.4))
    model[0].num_heads = 5
    with pytest.raises(dropkey.SiteError, match="not a multiple of its 5 heads"):
        model(tokens)


@pytest.mark.parametrize("layout", ["bhw", "g", "", None, 3])
def test_other_layouts_are_refused(layout):
    with pytest.raises(dropkey.ArgumentError, match=r"layout must be one of 'bh', 'b', got"):
        dropkey.register(Functional, layout=layout)


def test_kind_is_a_word_of_the_user_or_told_from_the_place():
    named = dropkey.register(type("Named", (Method,), {}), softmax=True, kind="pair")
    placed = nn.ModuleDict({"self_attn": Method(), "cross_attn": Method(), "other": named()})
    handle = dropkey.apply(placed, dropkey.DropKey(0.4))
    assert [site.kind for site in handle.sites] == ["self", "cross", "pair"]


def test_softmaxes_of_other_axes_and_of_other_modules_are_left_alone(tokens):
    @dropkey.register(softmax=True)
    class Gated(Method):
        def forward(self, x):
            return super().forward(x) * x.softmax(-1) * x.unsqueeze(1).softmax(1).squeeze(1)

    dropkey.apply(build(Gated), dropkey.DropKey(0.4)).verify(tokens)


class OwnDropout(Method):
    """Every drop of its own would leave nothing."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(1.0)
        self.qkv.weight.data.zero_()

    def weights(self, logits):
        return self.dropout(super().weights(logits))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("regularizer", [dropkey.DropKey(0.4), dropkey.AttentionDropout(0.4, renormalize=True)])
def test_its_own_dropout_gives_way_whatever_its_name(regularizer, compiled, tokens):
    model = build(dropkey.register(type("Dropping", (OwnDropout,), {}), softmax=True), 1)
    bare = model[0].proj(torch.zeros(DIM))
    values = model[0].qkv.bias[2 * DIM :]
    handle = dropkey.apply(model, regularizer)
    torch._dynamo.reset()
    run = torch.compile(model, backend="eager", fullgraph=True) if compiled else model
    torch.testing.assert_close(run(tokens), model[0].proj(values).expand(3, 17, -1))
    handle.disable()
    torch.testing.assert_close(run(tokens), bare.expand(3, 17, -1))


def test_its_own_dropout_by_name_is_shown(tokens):
    @dropkey.register(softmax=True)
    class Dropping(Method):
        def __init__(self):
            super().__init__()
            self.attn_dropout = nn.Dropout(0.3)

        def weights(self, logits):
            return self.attn_dropout(super().weights(logits))

    model = build(Dropping)
    with dropkey.apply(model, dropkey.DropKey(0.4)) as handle:
        handle.verify(tokens)
        assert model[0].attn_dropout.p == 0
    assert model[0].attn_dropout.p == 0.3


def test_a_backend_by_name_is_refused(tokens):
    model = build(Method)
    dropkey.apply(model, dropkey.DropKey(0.4), backend="sdpa")
    with pytest.raises(dropkey.BackendError, match="computes its softmax in Python"):
        model(tokens)


def test_compiled(tokens):
    torch._dynamo.reset()
    model = build(Child)
    handle = dropkey.apply(model, dropkey.DropKey(0.4))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert not torch.equal(compiled(tokens), compiled(tokens))
    handle.disable()
    torch.testing.assert_close(compiled(tokens), model(tokens))


def test_gradients_are_those_of_the_masked_softmax(tokens):
    """Whole model against the same one with its mask added to the logits."""
    one, other = build(Method, 1), build(Method, 1)
    dropkey.apply(one, dropkey.DropKey(0.4, schedule="constant"))
    torch.manual_seed(2)
    out = one(tokens)
    torch.manual_seed(2)
    keep = dropkey.keep_mask(3, HEADS, 17, 17, drop_ratio=0.4)
    other[0].weights = lambda logits: logits.masked_fill(~keep, -1e30).softmax(-1)
    expected = other(tokens)
    torch.testing.assert_close(out, expected)
    for made in (out, expected):
        made.square().sum().backward()
    for mine, reference in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, reference.grad)
