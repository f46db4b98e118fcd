"""Masks in the layout of each library: a module with DropKey against its own forward with the mask put in by hand."""

import pytest
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import dropkey
from dropkey.adapters.listeners import recording
from dropkey.catalogue.timm import TIMM_FAMILIES
from dropkey.catalogue.transformers import TRANSFORMERS_FAMILIES

RATIO = 0.5


def heads_first(keep, lead):
    """(B, H)"""
    return keep


def single_head(keep, lead):
    """(B)"""
    return keep[:, 0]


def heads_in_batch(keep, lead):
    """(B * H)"""
    return keep.reshape(lead[0], *keep.shape[2:])


def windows_second(keep, lead):
    """(B, W, H)"""
    return keep.reshape(*lead, *keep.shape[2:])


def windows_last(keep, lead):
    """(B, H, W)"""
    batch, heads, windows = lead
    return keep.reshape(batch, windows, heads, *keep.shape[2:]).permute(0, 2, 1, 3, 4)


def windows_beside_heads_in_batch(keep, lead):
    """(B * H, W)"""
    heads, windows = keep.shape[1], lead[1]
    return keep.reshape(-1, windows, heads, *keep.shape[2:]).permute(0, 2, 1, 3, 4).reshape(*lead, *keep.shape[2:])


CASES = {
    "timm NesT": windows_last,
    "timm Hiera": windows_last,
    "timm VOLO": windows_last,  # outlook attention: what a place hands to its window
    "timm Twins-SVT": windows_second,
    "timm SAM": heads_in_batch,
    "timm SHViT": single_head,
    "timm iFormer": single_head,
    "timm CaiT": heads_first,  # after the heads were mixed
    "timm ConViT": heads_first,  # two softmaxes, one mask
    "timm LeViT": heads_first,
    "timm MViT v2": heads_first,
    "timm BEiT": heads_first,
    "timm GC ViT": heads_first,
    "timm TinyViT": heads_first,
    "timm MaxViT": heads_first,
    "timm EfficientFormer v2": heads_first,
    "transformers SAM, vision": heads_in_batch,
    "transformers Hiera": windows_last,
    "transformers Table Transformer": heads_in_batch,
    "transformers BEiT": heads_first,
}
SLOW_CASES = {"timm HaloNet": windows_beside_heads_in_batch, "timm BoTNet": heads_in_batch}
FAMILIES = {f"{family.library} {family.name}": family for family in TIMM_FAMILIES + TRANSFORMERS_FAMILIES}


class MaskByHand(TorchFunctionMode):
    """Replaces dropped logits in every softmax over keys, in the layout in which the module has them."""

    def __init__(self, keeps, arrange):
        super().__init__()
        self.keeps, self.arrange, self.calls = keeps, arrange, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.Tensor.softmax, F.softmax, torch.softmax):
            logits, keep = args[0], self.keeps[min(self.calls, len(self.keeps) - 1)]
            self.calls += 1
            stays = self.arrange(keep, logits.shape[:-2]) | (logits < -1e30)  # padding stays below what is dropped
            logits = torch.where(stays, logits.double(), -1e30)
            return func(logits, dim=-1).to(args[0].dtype)
        return func(*args, **kwargs)


def first_site(family):
    """The first site of a family's small model in training mode, and what its forward was given there."""
    torch.manual_seed(0)
    model = family.small()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    handle = dropkey.apply(model, dropkey.DropKey(RATIO, schedule="constant"))
    module = model.get_submodule(handle.sites[0].name)
    given = []
    hook = module.register_forward_pre_hook(lambda _, args, kwargs: given.append((args, kwargs)), with_kwargs=True)
    with torch.no_grad():
        family.call(model.eval())
    hook.remove()
    module.train()
    return handle, module, given[0]


def compute_in_python(module):
    """Let a module that could call SDPA compute its softmax itself."""
    if hasattr(module, "fused_attn"):
        module.fused_attn = False
    if hasattr(module, "config"):
        module.config._attn_implementation = "eager"
    if type(module).__name__.startswith("SamVisionSdpa"):
        module.__class__ = type(module).__mro__[1]


def outcome(out):
    return out[0] if isinstance(out, tuple) else out


def check(name, arrange):
    handle, module, (args, kwargs) = first_site(FAMILIES[name])
    torch.manual_seed(2)
    with recording([module]) as (records,):
        out = outcome(module(*args, **kwargs))
    keeps = [
        dropkey.keep_mask(*record.call.mask_shape, drop_ratio=RATIO, seed=record.call.draw.seed) for record in records
    ]
    assert len({tuple(keep.shape) for keep in keeps}) == 1
    handle.remove()
    compute_in_python(module)
    torch.manual_seed(2)
    with MaskByHand(keeps, arrange) as by_hand:
        expected = outcome(module(*args, **kwargs))
    assert by_hand.calls == len(records)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    return keeps


@pytest.mark.parametrize("name", CASES)
def test_masks_lie_where_the_module_has_them(name):
    check(name, CASES[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_CASES)
def test_masks_lie_where_a_large_module_has_them(name):
    check(name, SLOW_CASES[name])


def test_cascaded_heads_draw_their_own_masks():
    one, other = check("timm EfficientViT (MSRA)", single_head)
    assert not torch.equal(one, other)


def test_both_softmaxes_of_gpsa_lose_the_same_keys():
    content, position = check("timm ConViT", heads_first)
    assert torch.equal(content, position)
