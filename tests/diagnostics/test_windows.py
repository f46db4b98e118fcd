"""Windows put back on the image: the places that the libraries' own partition gives."""

import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers
from timm.models.maxxvit import grid_partition
from timm.models.swin_transformer import window_partition
from torchvision.models.swin_transformer import SwinTransformer

import dropkey
from dropkey.catalogue.timm import TIMM_FAMILIES
from dropkey.catalogue.torch import TORCH_FAMILIES
from dropkey.diagnostics import WindowPlaces, window_places
from dropkey.diagnostics.pooling import pool, pool_windows
from dropkey.diagnostics.token_grid import TokenGrid

TIMM = {"window_size": 4, "depths": (2, 2), "num_heads": (1, 2), "embed_dim": 16, "num_classes": 3}
CONFIG = {"patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4}


def timm_swin(name="swin_tiny_patch4_window7_224"):
    return timm.create_model(name, img_size=(32, 64), **TIMM)


def torchvision_swin():
    return SwinTransformer([4, 4], 16, [2, 2], [1, 2], [4, 4], num_classes=3)


def transformers_swin(name="Swin"):
    config = getattr(transformers, f"{name}Config")(image_size=(32, 64), **CONFIG)
    return getattr(transformers, f"{name}Model")(config)


SWINS = {
    "timm Swin": timm_swin,
    "timm Swin v2": lambda: timm_swin("swinv2_tiny_window8_256"),
    "torchvision Swin": torchvision_swin,
    "transformers Swin": transformers_swin,
    "transformers Swin v2": lambda: transformers_swin("Swinv2"),
}


def swin_windows(rows, cols, window, shift):
    numbers = torch.arange(rows * cols).view(1, rows, cols, 1)
    shifted = torch.roll(numbers, (-shift, -shift), (1, 2))
    return window_partition(shifted, (window, window)).view(-1, window * window)


@pytest.mark.parametrize("family", SWINS)
def test_shifted_windows_of_swin(family):
    torch.manual_seed(0)
    model = SWINS[family]()
    state, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.random.get_rng_state()
    places = list(window_places(model.train(), torch.empty(1, 3, 32, 64)).values())
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert [each.grid for each in places] == [(8, 16)] * 2 + [(4, 8)] * 2
    for each, (rows, cols, shift) in zip(places, [(8, 16, 0), (8, 16, 2), (4, 8, 0), (4, 8, 2)], strict=True):
        want = [swin_windows(rows, cols, 4, shift)]
        if rows == 4 and shift:  # one row of windows: some libraries do not shift along it
            numbers = torch.arange(rows * cols).view(1, rows, cols, 1)
            want.append(window_partition(torch.roll(numbers, -2, 2), (4, 4)).view(-1, 16))
            want.append(swin_windows(rows, cols, 4, 0))
        assert any(torch.equal(each.patches, one) for one in want)


def test_in_inference_mode():
    model = timm_swin()
    with torch.inference_mode():
        assert len(window_places(model, torch.empty(1, 3, 32, 64))) == 4


def test_padding_is_no_patch():
    model = SwinTransformer([4, 4], 16, [2], [1], [4, 4], num_classes=3)
    plain, shifted = window_places(model, torch.empty(1, 3, 24, 24)).values()  # 6 x 6 patches in 2 x 2 windows of 4 x 4
    for each in (plain, shifted):
        assert each.grid == (6, 6)
        assert each.patches.shape == (4, 16)
        assert sorted(each.patches[each.patches >= 0].tolist()) == list(range(36))
    assert plain.patches[1].tolist() == [4, 5, -1, -1, 10, 11, -1, -1, 16, 17, -1, -1, 22, 23, -1, -1]


def test_windows_and_grids_of_maxvit():
    family = next(family for family in TIMM_FAMILIES if family.name == "MaxViT")
    model = family.small()
    places = window_places(model, torch.empty(1, 3, 64, 64))
    each = places["stages.0.blocks.0.attn_grid.attn"]
    window = model.stages[0].blocks[0].attn_grid.partition_size
    numbers = torch.arange(256).view(1, 16, 16, 1)
    assert torch.equal(each.patches, grid_partition(numbers, window).view(each.patches.shape))


def test_where_tokens_have_no_single_place():
    for name in ("DaViT", "HaloNet", "NesT", "Hiera"):
        family = next(family for family in TIMM_FAMILIES if family.name == name)
        assert window_places(family.small(), family.inputs()[""]) == {}
    family = next(family for family in TORCH_FAMILIES if family.name == "MaxViT")
    assert window_places(family.small(), family.inputs()[""]) == {}  # what it is given is cut already
    vit = torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 32)
    assert window_places(vit, torch.empty(1, 3, 32, 32)) == {}


def test_maps_on_the_image():
    """Of two images: the weight of a pair of patches is that in their window, and 0 where they share none."""
    model = timm_swin().eval()
    images = torch.randn(2, 3, 32, 64)
    places = window_places(model, images)
    name = "layers.0.blocks.1.attn"
    with torch.no_grad(), dropkey.capture(model) as maps:
        model(images)
    attn, each = maps[name], places[name]
    whole = each.on_image(attn)
    want = np.zeros((2, 1, 128, 128), dtype=np.float32)
    for image, window in np.ndindex(2, 8):
        patches = each.patches[window].numpy()
        want[image, 0, patches[:, None], patches] = attn[image * 8 + window, 0]
    np.testing.assert_array_equal(whole, want)
    assert torch.equal(each.on_image(attn, queries=[5, 127]), whole[:, :, [5, 127]])
    with pytest.raises(dropkey.ArgumentError, match="these are 8 windows of 16 tokens an image, got maps of shape"):
        each.on_image(attn[:7])
    with pytest.raises(dropkey.ArgumentError, match=r"queries must be patches 0 to 127, got \[128\]"):
        each.on_image(attn, queries=[128])


@pytest.mark.parametrize("cell", [1, 2, 3])
def test_pooled_without_the_whole_map(cell):
    generator = torch.Generator().manual_seed(0)
    rows = [[0, 1, 4, 5], [2, -1, 6, -1], [8, 9, 12, 13], [10, 15, 14, -1], [3, 7, 11, -1]]
    places, grid = WindowPlaces((4, 4), torch.tensor(rows)), TokenGrid((4, 4), 0)
    attn = torch.rand(5, 2, 4, 4, generator=generator)
    torch.testing.assert_close(
        pool_windows(attn, places, grid, cell), pool(places.on_image(attn), grid, grid, cell, cell)
    )
