"""Autocast and half precision: one type for all three tensors, and padding that stays forbidden in any type."""

import pytest
import torch
from conftest import tiny_vit

import dropkey
from dropkey.adapters.site import site_of
from dropkey.catalogue.timm import TIMM_FAMILIES
from dropkey.catalogue.torch import TORCH_FAMILIES
from dropkey.catalogue.transformers import TRANSFORMERS_FAMILIES

FAMILIES = {f"{f.library} {f.name}": f for f in TIMM_FAMILIES + TORCH_FAMILIES + TRANSFORMERS_FAMILIES}
# Rotary embeddings and pools give attention queries of another type than the values under autocast.
MIXED = ["transformers DINOv3", "transformers AIMv2, vision"]
OTHERS = ["timm Swin v2", "timm LeViT", "timm BEiT", "torch.nn nn.MultiheadAttention", "transformers DETR"]


def with_dropkey(model, ratio=0.4):
    return dropkey.apply(model, dropkey.DropKey(ratio, schedule="constant"))


@pytest.mark.parametrize("name", MIXED + OTHERS)
def test_autocast(name):
    torch.manual_seed(0)
    model = FAMILIES[name].small()
    positional, keyword = FAMILIES[name].arguments()
    handle = with_dropkey(model)
    with torch.autocast("cpu", torch.bfloat16):
        handle.verify(*positional, **keyword)
        output = model.train()(*positional, **keyword)
        leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]
        sum(leaf.float().square().sum() for leaf in leaves if leaf.requires_grad).backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("backend", ["auto", "sdpa"])
def test_normalised_queries_under_autocast(backend, images):
    model = tiny_vit(qk_norm=True)
    handle = dropkey.apply(model, dropkey.DropKey(0.4), backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        handle.verify(images)


def test_types_that_do_not_fit_are_named():
    @dropkey.register
    class Mixed(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.scaled_dot_product_attention(x, x, x.double())

    module = Mixed()
    with_dropkey(module)
    with pytest.raises(dropkey.SiteError, match=r"types torch.float32, torch.float32 and torch.float64"):
        module(torch.randn(1, 2, 5, 8))


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_padding_in_half_precision(dtype, implementation):
    """In float16 the smallest number plus a logit is above the smallest number, and must forbid all the same."""
    family = FAMILIES["transformers DETR"]
    torch.manual_seed(0)
    model = family.small()
    if implementation != model.config._attn_implementation:
        model.set_attn_implementation(implementation)
    model = model.to(dtype).train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                parameter.mul_(40)
    with_dropkey(model, 0.9)
    sites = [site_of(module) for module in model.modules() if site_of(module)]
    for site in sites:
        site.records = []
    inputs = family.inputs()
    model(pixel_values=inputs["pixel_values"].to(dtype), pixel_mask=inputs["pixel_mask"])
    for site in sites:
        (record,) = site.records
        allowed = record.call.allowed()
        share = 1.0 if allowed is None else allowed.expand(record.call.mask_shape).double().mean().item()
        assert share == (1.0 if site.entry.kind == "decoder self" else 0.75)
