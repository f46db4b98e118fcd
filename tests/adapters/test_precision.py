"""Autocast and half precision: one type for all three tensors, and padding that stays forbidden in any type."""

import pytest
import torch
from conftest import tiny_vit

import dropkey
from dropkey.adapters.listeners import recording
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
def test_normalized_queries_under_autocast(backend, images):
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
    with pytest.raises(dropkey.SiteError, match=r"value is torch.float64 on cpu, query torch.float32 on cpu"):
        module(torch.randn(1, 2, 5, 8))


PADDED = {"DETR": {"encoder self": 0.75, "decoder self": 1, "decoder cross": 0.75}, "SigLIP 2, vision": {"self": 0.875}}


@pytest.mark.parametrize("name", PADDED)
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_padding_in_half_precision(dtype, implementation, name):
    """A padding mask holds the smallest number of its own type: above that of float32, and in float16 it may grow."""
    family, visible = FAMILIES[f"transformers {name}"], PADDED[name]
    torch.manual_seed(0)
    model = family.small()
    if implementation != model.config._attn_implementation:
        model.set_attn_implementation(implementation)
    model = model.to(dtype).train()
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if "q_proj.bias" in path or "k_proj.bias" in path:
                parameter.fill_(4)  # logits of 64
    dropkey.apply(model, dropkey.DropKey(0.9, schedule="constant"), where=lambda site: site.kind in visible)
    modules = [module for module in model.modules() if site_of(module)]
    inputs = family.inputs()
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    with recording(modules) as records:
        model(**inputs)
    for module, (record,) in zip(modules, records, strict=True):
        allowed = record.call.allowed()
        share = 1.0 if allowed is None else allowed.expand(record.call.mask_shape).double().mean().item()
        assert share == visible[site_of(module).entry.kind]
