"""Shifted windows: keys of other regions stay forbidden while DropKey is on, in every library's Swin.

The oracle knows the regions from the shift alone, draws the masks with Python integers and attends in float64.
"""

import numpy as np
import pytest
import torch
from oracles.attention import attention
from oracles.masks import keep_mask
from timm.layers import set_fused_attn

import dropkey
from dropkey.adapters.listeners import recording
from dropkey.adapters.site import site_of
from dropkey.catalogue.timm import TIMM_FAMILIES
from dropkey.catalogue.torch import TORCH_FAMILIES
from dropkey.catalogue.transformers import TRANSFORMERS_FAMILIES

SWINS = [
    family
    for families, names in (
        (TIMM_FAMILIES, {"Swin", "Swin v2", "Swin v2, cr"}),
        (TORCH_FAMILIES, {"Swin", "Swin v2"}),
        (TRANSFORMERS_FAMILIES, {"Swin", "Swin v2", "Donut's Swin"}),
    )
    for family in families
    if family.name in names
]
GRID, WINDOW, SHIFT = 8, 4, 2  # of the first stage of every small Swin: 32 pixels, patches of 4


def regions(grid, window, shift):
    """Which keys a query of a shifted window may see: bool (windows, window area, window area)."""
    line = np.array([0 if i < grid - window else 1 if i < grid - shift else 2 for i in range(grid)])
    region = 3 * line[:, None] + line[None, :]
    tiles = region.reshape(grid // window, window, grid // window, window).transpose(0, 2, 1, 3)
    tiles = tiles.reshape(-1, window * window)
    return tiles[:, :, None] == tiles[:, None, :]


def records_of(family, ratio):
    torch.manual_seed(0)
    model = family.small()
    dropkey.apply(model, dropkey.DropKey(ratio, schedule="constant"))
    torch.manual_seed(1)
    with recording([module for module in model.modules() if site_of(module)]) as records:
        family.call(model.train())
    return [heard[0] for heard in records]


@pytest.fixture(params=[False, True], ids=["softmax", "sdpa"])
def _fused(request):
    """timm's Swin v1 has both ways in."""
    set_fused_attn(request.param, experimental=request.param)
    yield
    set_fused_attn(True, experimental=False)


@pytest.mark.usefixtures("_fused")
@pytest.mark.parametrize("family", SWINS, ids=lambda family: f"{family.library} {family.name}")
@pytest.mark.parametrize("ratio", [0.3, 0.95])  # at 0.95 most rows of the small regions lose all their keys
def test_regions_stay_apart(family, ratio):
    records = records_of(family, ratio)
    assert len(records) == 4
    everything = np.ones((4, 16, 16), dtype=bool)
    for record, allowed in zip(records[:2], (everything, regions(GRID, WINDOW, SHIFT)), strict=True):
        call = record.call
        shape = call.mask_shape
        assert shape == (8, 1, 16, 16)
        allowed = np.tile(allowed, (2, 1, 1))[:, None]  # the windows of one image, then those of the next
        keep = keep_mask(shape, ratio, "element", int(call.draw.seed))
        bias = call.attn_bias.detach().double().expand(shape).numpy()
        tensors = [tensor.detach().double().numpy() for tensor in (call.query, call.key, call.value)]
        expected, attn = attention(*tensors, keep, allowed=allowed, bias=bias, scale=call.scale)
        assert not attn[~np.broadcast_to(allowed, shape)].any()
        np.testing.assert_allclose(record.out.detach().numpy(), expected, atol=1e-5)


def test_windows_of_a_batch_draw_their_own_masks():
    keep = dropkey.keep_mask(*records_of(SWINS[0], 0.5)[0].call.mask_shape, drop_ratio=0.5, seed=3)
    assert len({mask.numpy().tobytes() for mask in keep.flatten(0, 1)}) == 8


def test_outside_of_training_the_number_stays():
    """Evaluation has timm's own -100, which lets a little through: it is not for us to mend."""
    family = SWINS[0]
    torch.manual_seed(0)
    model = family.small().eval()
    untouched = family.call(model)
    with dropkey.apply(model, dropkey.DropKey(0.3)):
        assert torch.equal(family.call(model), untouched)
