"""Attention of detection libraries: classes of ours in their places, and the real ones where they are installed."""

import importlib
import types
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dropkey
from dropkey.adapters.detectors import DETECTOR_CLASSES, DETECTORS_LEFT_ALONE

DIM, HEADS = 32, 2
TOKENS = torch.randn(3, 16, DIM, generator=torch.Generator().manual_seed(0))
MAP = torch.randn(3, DIM, 4, 4, generator=torch.Generator().manual_seed(0))
WINDOW_MASK = torch.zeros(3, 16, 16).index_fill(-1, torch.tensor([3, 5]), -100.0)
CONFIG = types.SimpleNamespace(
    hidden_size=DIM, num_attention_heads=HEADS, qkv_bias=True, attention_probs_dropout_prob=0.1
)


class Projected(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.num_heads = HEADS
        self.window_size = (4, 4)
        self.qkv = nn.Linear(DIM, 3 * DIM)
        self.dropout = nn.Dropout(0.1)

    def split(self, x):
        return self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)


class Eager(Projected):
    def forward(self, x):
        q, k, v = self.split(x)
        return (self.dropout((q @ k.mT / 4).softmax(-1)) @ v).transpose(1, 2).flatten(2)


class Folded(Projected):
    def forward(self, query, key, value):
        q, k, v = (part[i].flatten(0, 1) for i, part in enumerate(map(self.split, (query, key, value))))
        out = torch.bmm(F.softmax(torch.bmm(q, k.mT) / 4, dim=-1), v)
        return out.unflatten(0, (-1, HEADS)).transpose(1, 2).flatten(2)


class Fused(Projected):
    def forward(self, x):
        return F.scaled_dot_product_attention(*self.split(x)).transpose(1, 2).flatten(2)


class Windowed(Projected):
    def forward(self, x, mask=None):
        q, k, v = self.split(x)
        logits = q @ k.mT / 4 if mask is None else q @ k.mT / 4 + mask[:, None]
        return (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)


class OfMaps(Projected):
    """Keys and values as channels first, as convolutions give them."""

    def forward(self, x):
        q, k, v = (part.mT for part in self.split(x.flatten(2).mT))
        return (v @ (q.mT @ k).softmax(-1).mT).flatten(1, 2).view(x.shape)


DOUBLES = {
    "Dinov2WithRegistersSelfAttention": (Eager, (TOKENS,)),
    "lwdetr.nn.Attention": (Eager, (TOKENS,)),
    "lwdetr.nn.MultiheadAttention": (Folded, (TOKENS,) * 3),
    "ec.backbone.Attention": (Fused, (TOKENS,)),
    "swin.WindowAttention": (Windowed, (TOKENS, WINDOW_MASK)),
    "block.Attention": (OfMaps, (MAP,)),
    "block.AAttn": (OfMaps, (MAP,)),
}


class Model(nn.Module):
    def __init__(self, attention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, *inputs):
        return self.attention(*inputs)


def check(attention, inputs, kind):
    model = Model(attention).train()
    plain = model.eval()(*inputs)
    handle = dropkey.apply(model, dropkey.DropKey(0.3, schedule="constant"), example=inputs)
    assert [(site.name, site.kind) for site in handle.sites] == [("attention", kind)]
    assert not handle.unknown
    (seen,) = handle.verify(*inputs).checks
    assert seen.drop_ratio == 0.3
    out = model.eval()(*inputs)
    assert torch.equal(*(o[0] if isinstance(o, tuple) else o for o in (out, plain)))
    handle.remove()


@pytest.mark.parametrize("path", DETECTOR_CLASSES)
def test_a_class_in_its_place(path):
    base, inputs = next(double for ending, double in DOUBLES.items() if path.endswith(ending))
    module, _, name = path.rpartition(".")
    cls = type(name, (base,), {"__module__": module, "__qualname__": name})
    check(cls(), inputs, DETECTOR_CLASSES[path].kind)
    derived = type("Derived", (cls,), {})  # as their SDPA forms are
    check(derived(), inputs, DETECTOR_CLASSES[path].kind)


@pytest.mark.parametrize("path", DETECTORS_LEFT_ALONE)
def test_deformable_attention_is_left_alone_by_name(path):
    module, _, name = path.rpartition(".")
    cls = type(name, (nn.Linear,), {"__module__": module, "__qualname__": name})
    model = nn.Sequential(nn.MultiheadAttention(8, 2), cls(4, 4))
    handle = dropkey.apply(model, dropkey.DropKey(0.3))
    assert handle.left_alone == [f"1 ({name}): deformable attention: it samples places, there are no keys"]
    assert not handle.unknown


def made(path, cls):
    """A real class, and inputs of it."""
    if path.endswith("Dinov2WithRegistersSelfAttention"):
        return cls(CONFIG), (TOKENS,)
    if path.endswith("WindowAttention"):
        return cls(DIM, (4, 4), HEADS), (TOKENS, WINDOW_MASK)
    if path.endswith("MultiheadAttention"):
        return cls(DIM, HEADS), (TOKENS,) * 3
    return cls(DIM, HEADS), (MAP if path.startswith("ultralytics") else TOKENS,)


@pytest.mark.parametrize("path", DETECTOR_CLASSES)
def test_the_real_class(path):
    """With the extra ``compat`` (rfdetr, libreyolo), or ultralytics installed by hand: its license is AGPL."""
    module, _, name = path.rpartition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip(path.partition(".")[0], exc_type=ImportError)
        cls = getattr(importlib.import_module(module), name)
    assert library
    check(*made(path, cls), DETECTOR_CLASSES[path].kind)


@pytest.mark.parametrize("path", DETECTORS_LEFT_ALONE)
def test_the_real_deformable_class_is_called_so(path):
    module, _, name = path.rpartition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip(path.partition(".")[0], exc_type=ImportError)
        assert issubclass(getattr(importlib.import_module(module), name), nn.Module)
