"""Unknown classes in the shape of attention: reached where an example proves them, named where it does not."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dropkey

DIM, HEADS = 16, 2


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.num_heads = HEADS
        self.qkv = nn.Linear(DIM, 3 * DIM)
        self.proj = nn.Linear(DIM, DIM)

    def split(self, x):
        """Query, key and value (B, H, N, D)."""
        return self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)

    def join(self, out):
        return self.proj(out.transpose(1, 2).flatten(2))


class SoftAttention(Base):
    def forward(self, x):
        q, k, v = self.split(x)
        return self.join((q @ k.mT).softmax(-1) @ v)


class FoldedAttention(Base):
    def forward(self, x):
        q, k, v = (t.flatten(0, 1) for t in self.split(x))
        return self.join((torch.softmax(q @ k.mT / 4, dim=-1) @ v).unflatten(0, (-1, HEADS)))


class FusedAttention(Base):
    def forward(self, x):
        return self.join(F.scaled_dot_product_attention(*self.split(x)))


class CrossAttention(Base):
    def forward(self, x, context):
        q, k, v = self.split(x)[0], *self.split(context)[1:]
        return self.join(F.softmax(q @ k.mT, dim=-1) @ v)


class ChannelAttention(Base):
    """Linear attention: its softmax is over the channels of a head, and would be taken for one over keys."""

    def forward(self, x):
        q, k, v = self.split(x)
        return self.join(q.softmax(-1) @ (k.softmax(-2).mT @ v))


class CovarianceAttention(Base):
    """Maps of channels by channels, as in XCiT."""

    def forward(self, x):
        q, k, v = (t.mT for t in self.split(x))
        return self.join(((q @ k.mT).softmax(-1) @ v).mT)


class GateAttention(Base):
    """A softmax over heads."""

    def forward(self, x):
        return self.join(self.split(x)[0] * self.split(x).mean((0, -1), keepdim=False).softmax(1)[..., None])


class MixingAttention(Base):
    """Attention whose tokens also meet outside of it: forbidding a key does not cut a token off."""

    def forward(self, x):
        q, k, v = self.split(x)
        return self.join((q @ k.mT).softmax(-1) @ v + v.mean(-2, keepdim=True))


class UnusedAttention(Base):
    """Computes maps and does not use them."""

    def forward(self, x):
        q, k, v = self.split(x)
        self.last_map = (q @ k.mT).softmax(-1).detach()
        return self.join(v)


class Still(Base):
    """Looks like attention and computes none."""

    def forward(self, x):
        return self.join(self.split(x)[2])


TRUE = [SoftAttention, FoldedAttention, FusedAttention]
FALSE = [ChannelAttention, CovarianceAttention, GateAttention, MixingAttention, UnusedAttention, Still]
X = torch.randn(2, 11, DIM, generator=torch.Generator().manual_seed(0))


class Model(nn.Module):
    def __init__(self, classes) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(cls() for cls in classes)
        self.norm = nn.BatchNorm1d(DIM)

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return self.norm(x.mT).mT


@pytest.mark.parametrize("cls", TRUE)
def test_attention_is_reached_and_proved(cls):
    model = Model([cls] * 2)
    with pytest.raises(dropkey.SiteError, match="by_shape=True"):
        dropkey.apply(model, dropkey.DropKey(0.3))
    handle = dropkey.apply(model, dropkey.DropKey(0.3), example=X, by_shape=True)
    assert [site.name for site in handle.sites] == ["layers.0", "layers.1"]
    assert handle.drop_ratios == (0.3, 0.0)
    assert [check.drop_ratio for check in handle.verify(X).checks] == [0.3, 0.0]
    assert not handle.unknown
    twin = dropkey.handle(copy.deepcopy(model))
    assert twin.drop_ratios == handle.drop_ratios
    handle.remove()
    assert type(model.layers[0]) is cls
    assert len(twin.sites) == 2


@pytest.mark.parametrize("cls", FALSE)
def test_what_is_no_attention_over_tokens_is_left_out_with_a_warning(cls):
    model = Model([SoftAttention, cls])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.warns(UserWarning, match=rf"by_shape leaves out layers\.1 \({cls.__name__}\), not proved: \S"):
        handle = dropkey.apply(model, dropkey.DropKey(0.3), example=X, by_shape=True)
    assert [site.name for site in handle.sites] == ["layers.0"]
    assert handle.unknown == [f"layers.1 ({cls.__name__})"]
    assert type(model.layers[1]) is cls
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_cross_attention():
    layer = CrossAttention()
    example = {"x": X, "context": torch.randn(2, 7, DIM)}
    handle = dropkey.apply(layer, dropkey.DropKey(0.3, schedule="constant"), example=example, by_shape=True)
    assert handle.verify(**example).checks[0].drop_ratio == 0.3


def test_known_classes_are_reached_beside_and_blocks_counted_as_they_run():
    encoder = nn.TransformerEncoderLayer(DIM, HEADS, dropout=0.0, batch_first=True)
    model = nn.Sequential(SoftAttention(), encoder, FusedAttention())
    handle = dropkey.apply(model, dropkey.DropKey(0.4), example=X, by_shape=True)
    assert [site.name for site in handle.sites] == ["0", "1.self_attn", "2"]
    assert handle.drop_ratios == tuple(dropkey.schedules.linear_decay(0.4, 3))
    handle.verify(X)


def test_an_example_is_needed():
    with pytest.raises(dropkey.ArgumentError, match="by_shape=True needs example="):
        dropkey.apply(Model([SoftAttention]), dropkey.DropKey(0.3), by_shape=True)


def test_nothing_proved_is_an_error_that_says_what_there_is():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(dropkey.SiteError, match=r"layers\.0 \(ChannelAttention\)"):
            dropkey.apply(Model([ChannelAttention]), dropkey.DropKey(0.3), example=X, by_shape=True)
