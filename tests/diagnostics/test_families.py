"""Capture on every family of the catalogue: outputs to the bit, and no attention left out."""

import pytest
import torch

import dropkey
from dropkey.catalogue.timm import TIMM_FAMILIES
from dropkey.catalogue.torch import TORCH_FAMILIES
from dropkey.catalogue.transformers import TRANSFORMERS_FAMILIES

LARGE = {"Next-ViT", "MobileNet v4, hybrid", "BoTNet", "HaloNet", "ResNet of CLIP", "CSATv2", "Gemma 4 ViT"}
FAMILIES = [
    pytest.param(family, id=f"{family.library} {family.name}", marks=[pytest.mark.slow] if family.name in LARGE else [])
    for family in TIMM_FAMILIES + TORCH_FAMILIES + TRANSFORMERS_FAMILIES
]


def outputs(model, family, state):
    """Return all outputs, from the same random state and buffers each time."""
    model.load_state_dict(state)
    torch.manual_seed(7)
    positional, keyword = family.arguments()
    leaves = torch.utils._pytree.tree_leaves(model(*positional, **keyword))
    return [leaf.nan_to_num() for leaf in leaves if isinstance(leaf, torch.Tensor)]


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_are_the_same_to_the_bit_and_every_site_is_heard(family):
    torch.manual_seed(0)
    model = family.small()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    classes = [type(module) for module in model.modules()]
    for applied, training, gradients in ((False, False, False), (False, True, True), (True, True, True)):
        handle = dropkey.apply(model, dropkey.DropKey(0.4, schedule="constant")) if applied else None
        model.train(training)
        with torch.set_grad_enabled(gradients):
            want = outputs(model, family, state)
            with dropkey.capture(model) as maps:
                out = outputs(model, family, state)
        assert len(out) == len(want) > 0
        assert all(torch.equal(one, other) for one, other in zip(out, want, strict=True))
        assert "has not attended" not in str(maps)
        assert len(maps) == len(dropkey.adapters.discover.attention_modules(model))
        if handle is not None:
            assert any((one == 0).any() for one in every_map(maps))
            handle.remove()
    assert [type(module) for module in model.modules()] == classes


def every_map(maps):
    for seen in maps.values():
        yield from seen if isinstance(seen, list) else [seen]
