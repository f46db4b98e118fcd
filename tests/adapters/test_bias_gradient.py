"""Learned position biases learn on while keys are dropped: their gradients against finite differences."""

import pytest
import torch
from timm.layers import set_fused_attn

import dropkey
from dropkey.catalogue.timm import TIMM_FAMILIES
from dropkey.catalogue.torch import TORCH_FAMILIES
from dropkey.catalogue.transformers import TRANSFORMERS_FAMILIES

FAMILIES = {f"{f.library} {f.name}": f for f in TIMM_FAMILIES + TORCH_FAMILIES + TRANSFORMERS_FAMILIES}
BIASES = {
    "timm BEiT": "relative_position_bias_table",
    "timm ViT, relative positions": "rel_pos.mlp.fc2.weight",
    "timm Swin": "relative_position_bias_table",
    "timm Swin v2": "cpb_mlp.2.weight",
    "timm LeViT": "attention_biases",
    "timm TinyViT": "attention_biases",
    "timm MaxViT": "rel_pos.relative_position_bias_table",
    "timm GC ViT": "rel_pos.relative_position_bias_table",
    "timm SAM": "rel_pos_h",
    "timm MViT v2": "rel_pos_h",
    "torchvision Swin": "relative_position_bias_table",
    "torchvision MaxViT": "relative_position_bias_table",
    "transformers BEiT": "relative_position_bias_table",
    "transformers Swin": "relative_position_bias.relative_position_bias_table",
    "transformers SAM, vision": "rel_pos_w",
}


@pytest.fixture(params=[True, False], ids=["fused", "unfused"])
def _fused(request):
    set_fused_attn(request.param)
    yield
    set_fused_attn(True)


def shaken(family):
    torch.manual_seed(0)
    model = family.small().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.train()


@pytest.mark.usefixtures("_fused")
@pytest.mark.parametrize("name", BIASES)
def test_gradient(name):
    family = FAMILIES[name]
    model = shaken(family)
    dropkey.apply(model, dropkey.DropKey(0.4, schedule="constant"))
    bias = next(parameter for path, parameter in model.named_parameters() if path.endswith(BIASES[name]))
    positional, keyword = family.arguments()
    positional = [value.double() for value in positional]
    keyword = {key: value.double() for key, value in keyword.items()}

    def loss():
        torch.manual_seed(3)
        out = model(*positional, **keyword)
        leaves = torch.utils._pytree.tree_leaves(out)
        return sum(leaf.sin().sum() for leaf in leaves if isinstance(leaf, torch.Tensor))

    loss().backward()
    gradient = bias.grad
    assert gradient.abs().max() > 1e-5
    direction = torch.randn_like(bias)
    step = 1e-5
    with torch.no_grad():
        bias.add_(step * direction)
        above = loss()
        bias.sub_(2 * step * direction)
        below = loss()
    slope = ((above - below) / (2 * step)).item()
    assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-4, abs=1e-8)
