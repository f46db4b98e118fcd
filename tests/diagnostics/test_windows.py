"""Windows put back on the image: the places that the libraries' own partition gives."""

import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg
from timm.models.efficientvit_msra import EfficientVitMsra
from timm.models.maxxvit import grid_partition
from timm.models.nest import blockify
from timm.models.swin_transformer import window_partition
from torch import nn
from torchvision.models.swin_transformer import SwinTransformer

import dropkey
from dropkey.catalogue.timm import TIMM_FAMILIES
from dropkey.catalogue.torch import TORCH_FAMILIES
from dropkey.diagnostics import Places, WindowPlaces, window_places
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
    assert [each.keys.grid for each in places] == [(8, 16)] * 2 + [(4, 8)] * 2
    assert all(each.queries is each.keys or torch.equal(each.queries.patches, each.keys.patches) for each in places)
    for each, (rows, cols, shift) in zip(places, [(8, 16, 0), (8, 16, 2), (4, 8, 0), (4, 8, 2)], strict=True):
        want = [swin_windows(rows, cols, 4, shift)]
        if rows == 4 and shift:  # one row of windows: some libraries do not shift along it
            numbers = torch.arange(rows * cols).view(1, rows, cols, 1)
            want.append(window_partition(torch.roll(numbers, -2, 2), (4, 4)).view(-1, 16))
            want.append(swin_windows(rows, cols, 4, 0))
        assert any(torch.equal(each.keys.patches, one) for one in want)


def checkpointed():
    model = timm_swin()
    model.set_grad_checkpointing()
    return model


AROUND = {
    "frozen": lambda: timm_swin().requires_grad_(False),
    "float64": lambda: timm_swin().double(),
    "checkpointed": checkpointed,
    "compiled": lambda: torch.compile(timm_swin(), backend="eager"),
    "DataParallel": lambda: nn.DataParallel(timm_swin()),
}


@pytest.mark.parametrize("around", AROUND)
def test_whatever_is_around_a_model(around):
    model = AROUND[around]()
    images = torch.empty(1, 3, 32, 64, dtype=next(model.parameters()).dtype)
    found = window_places(model, images)
    want = window_places(timm_swin(), torch.empty(1, 3, 32, 64))
    assert list(found) == list(want)
    assert all(torch.equal(found[name].keys.patches, want[name].keys.patches) for name in want)
    assert around != "checkpointed" or all(layer.grad_checkpointing for layer in model.layers)


def test_what_cannot_be_found_is_left_out():
    assert window_places(timm_swin().bfloat16(), torch.empty(1, 3, 32, 64, dtype=torch.bfloat16)) == {}
    with torch.inference_mode():
        model = timm_swin()
    assert "where these lie on the image" in dropkey.diagnose(model, torch.randn(1, 3, 32, 64)).notes[0]
    model = timm_swin()
    block = model.layers[0].blocks[0]
    forward = block.forward
    block.forward = lambda x: torch.utils.checkpoint.checkpoint(forward, x, use_reentrant=False)
    assert list(window_places(model, torch.empty(1, 3, 32, 64))) == [
        f"layers.{layer}.blocks.{number}.attn" for layer, number in ((0, 1), (1, 0), (1, 1))
    ]


def test_in_inference_mode():
    model = timm_swin()
    with torch.inference_mode():
        assert len(window_places(model, torch.empty(1, 3, 32, 64))) == 4


def test_padding_is_no_patch():
    model = SwinTransformer([4, 4], 16, [2], [1], [4, 4], num_classes=3)
    plain, shifted = window_places(model, torch.empty(1, 3, 24, 24)).values()  # 6 x 6 patches in 2 x 2 windows of 4 x 4
    for grid, patches in (*plain, *shifted):
        assert grid == (6, 6)
        assert patches.shape == (4, 16)
        assert sorted(patches[patches >= 0].tolist()) == list(range(36))
    assert plain.keys.patches[1].tolist() == [4, 5, -1, -1, 10, 11, -1, -1, 16, 17, -1, -1, 22, 23, -1, -1]


def family(name, families=TIMM_FAMILIES):
    return next(family for family in families if family.name == name)


def numbers(rows, cols):
    return torch.arange(rows * cols).view(1, rows, cols, 1)


def squares(grid, window):
    """Windows that lie side by side."""
    tokens = window_partition(numbers(*grid), (window, window))
    return tokens.view(-1, window * window)


def of_maxvit():
    model = family("MaxViT").small()
    window = model.stages[0].blocks[0].attn_grid.partition_size
    want = grid_partition(numbers(16, 16), window).view(16, 16)
    return model, (64, 64), {"stages.0.blocks.0.attn_grid.attn": ((16, 16), want, (16, 16), want)}


def of_torchvision_maxvit():
    model = family("MaxViT", TORCH_FAMILIES).small()
    window = model.blocks[0].layers[0].layers.window_attention
    grid = model.blocks[0].layers[0].layers.grid_attention
    cut = {
        "window": window.partition_op(numbers(16, 16).permute(0, 3, 1, 2), window.p)[0, ..., 0],
        "grid": grid.partition_swap(grid.partition_op(numbers(16, 16).permute(0, 3, 1, 2), grid.p))[0, ..., 0],
    }
    names = {kind: f"blocks.0.layers.0.layers.{kind}_attention.attn_layer.1" for kind in cut}
    return model, (64, 64), {names[kind]: ((16, 16), want, (16, 16), want) for kind, want in cut.items()}


def of_davit():
    model = timm.create_model("davit_tiny", depths=(2, 1), embed_dims=(16, 32), num_heads=(1, 2), window_size=4)
    want = {f"stages.0.blocks.{block}.0.attn": ((16, 24), squares((16, 24), 4)) * 2 for block in (0, 1)}
    return model, (64, 96), want | {"stages.1.blocks.0.0.attn": ((8, 12), squares((8, 12), 4)) * 2}


def of_nest():
    """As many blocks as tokens in each, so that blocks by tokens have the shape of rows by columns."""
    sizes = {"num_levels": 3, "embed_dims": (16, 32, 32), "num_heads": (1, 2, 2), "depths": (2, 1, 1)}
    model = timm.models.nest.Nest(img_size=64, num_classes=3, **sizes)
    want = {
        f"levels.0.transformer_encoder.{block}.attn": ((16, 16), blockify(numbers(16, 16), 4)[0, ..., 0]) * 2
        for block in (0, 1)
    }
    return (
        model,
        (64, 64),
        want | {"levels.1.transformer_encoder.0.attn": ((8, 8), blockify(numbers(8, 8), 4)[0, ..., 0]) * 2},
    )


def of_hiera():
    """Queries of the first block of a stage are pooled: each is a cell of 2 x 2 of its keys."""
    model = timm.create_model("hiera_tiny_224", img_size=(64, 96), stages=(2, 2, 1, 1), embed_dim=16, num_heads=1)
    in_order = model.unroll(numbers(16, 24).view(1, -1, 1))[0, :, 0]

    def windows(place, factor):
        """Of the tokens that are left once cells of so many patches are one: every window's."""
        rows, cols = in_order // 24 // factor, in_order % 24 // factor
        tokens = (rows * (24 // factor) + cols).view(factor * factor, -1)
        assert (tokens == tokens[0]).all()
        return (16 // factor, 24 // factor), tokens[0].view(-1, 6).T

    (fine, whole), (half, pooled), (quarter, coarse) = (windows(0, factor) for factor in (1, 2, 4))
    return model, (64, 96), {
        "blocks.0.attn": (fine, whole, fine, whole), "blocks.1.attn": (fine, whole, fine, whole),
        "blocks.2.attn": (half, pooled, fine, whole), "blocks.3.attn": (half, pooled, half, pooled),
        "blocks.4.attn": (quarter, coarse, half, pooled),
    }  # fmt: skip


def of_sam2():
    """Windows of rows and columns, whose queries are pooled once a stage."""
    model = family("SAM 2, Hiera").small()
    fine, half = squares((16, 16), 8), squares((8, 8), 4)
    return model, (64, 64), {
        "blocks.0.attn": ((16, 16), fine, (16, 16), fine),
        "blocks.1.attn": ((8, 8), half, (16, 16), fine),
        "blocks.2.attn": ((8, 8), half, (8, 8), half),
    }  # fmt: skip


def of_efficientvit():
    """A convolution over the queries of a window, which each remain those of their patch; the last one is padded."""
    sizes = {"embed_dim": (16,), "key_dim": (8,), "depth": (1,), "num_heads": (2,), "kernels": (5, 3)}
    model = EfficientVitMsra(img_size=160, window_size=(7,), down_ops=(("", 1),), num_classes=3, **sizes)
    padded = torch.full((1, 14, 14, 1), -1)
    padded[:, :10, :10] = numbers(10, 10)
    want = window_partition(padded, (7, 7)).view(4, 49)
    return model, (160, 160), {"stages.0.blocks.0.mixer.m.attn": ((10, 10), want) * 2}


def of_halonet():
    """Keys of a block reach into the blocks around it, and beyond the image; the last asks for one patch of four."""
    blocks = tuple(ByoBlockCfg(type="self_attn", d=1, c=32, s=stride, gs=0, br=0.5) for stride in (1, 2))
    halo = {"self_attn_layer": "halo", "self_attn_kwargs": {"block_size": 4, "halo_size": 1}}
    model = ByobNet(ByoModelCfg(blocks=blocks, stem_chs=16, stem_pool="", **halo), num_classes=3)
    around = torch.nn.functional.pad(numbers(8, 12)[0, ..., 0], (1, 1, 1, 1), value=-1)
    keys = around.unfold(0, 6, 4).unfold(1, 6, 4).reshape(-1, 36)
    return model, (16, 24), {
        "stages.0.0.self_attn": ((8, 12), squares((8, 12), 4), (8, 12), keys),
        "stages.1.0.self_attn": ((4, 6), squares((4, 6), 2), (8, 12), keys),
    }  # fmt: skip


CUT = [of_maxvit, of_torchvision_maxvit, of_davit, of_nest, of_hiera, of_sam2, of_efficientvit, of_halonet]


@pytest.mark.parametrize("cut", CUT)
def test_where_the_library_itself_cuts(cut):
    """Its own code cuts a feature map that holds the number of each patch."""
    torch.manual_seed(0)
    model, size, want = cut()
    found = window_places(model, torch.empty(1, 3, *size))
    for name, (query_grid, queries, key_grid, keys) in want.items():
        assert (found[name].queries.grid, found[name].keys.grid) == (query_grid, key_grid), name
        assert torch.equal(found[name].queries.patches, queries), name
        assert torch.equal(found[name].keys.patches, keys), name


@dropkey.register(kind="window")
class Shuffled(nn.Module):
    """Attends in windows of tokens in any order, perhaps after these were mixed."""

    def __init__(self, order, mixes=False):
        super().__init__()
        self.order = order
        self.mix = nn.Conv1d(8, 8, 3, padding=1, groups=8) if mixes else nn.Identity()

    def forward(self, x):
        x = self.mix(x.mT).mT
        x = x[:, self.order].unflatten(1, (4, -1)).flatten(0, 1)[:, None]
        out = nn.functional.scaled_dot_product_attention(x, x, x)
        return out[:, 0].unflatten(0, (-1, 4)).flatten(1, 2)[:, self.order.argsort()]


class Stack(nn.Module):
    def __init__(self, *attention):
        super().__init__()
        self.patch_embed, self.blocks = nn.Conv2d(3, 8, 4, 4), nn.ModuleList(attention)

    def forward(self, x):
        x = self.patch_embed(x).flatten(2).mT
        for block in self.blocks:
            x = x + block(x)
        return x


def test_a_class_that_nobody_knows():
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(64, generator=generator)
    model = Stack(Shuffled(order), Shuffled(order.flip(0)), Shuffled(order, mixes=True)).eval()
    images = torch.randn(2, 3, 32, 32, generator=generator)
    found = window_places(model, images)
    assert list(found) == ["blocks.0", "blocks.1"]
    assert torch.equal(found["blocks.0"].keys.patches, order.view(4, 16))
    assert torch.equal(found["blocks.1"].queries.patches, order.flip(0).view(4, 16))
    report = dropkey.diagnose(model, images)
    assert [site.is_on_image for site in report.sites] == [True, True, False]
    assert "1 of 3 sites are means over their windows, since it was not found where these lie" in report.notes[0]
    assert report.notes[0].endswith(": blocks.2")


def test_what_has_no_windows():
    vit = torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 32)
    assert window_places(vit, torch.empty(1, 3, 32, 32)) == {}


def test_nothing_is_left_in_the_model():
    model = timm_swin().train()
    model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    hooks = [(dict(module._forward_hooks), dict(module._forward_pre_hooks)) for module in model.modules()]
    window_places(model, torch.empty(1, 3, 32, 64))
    assert [module.training for module in model.modules()] == modes
    assert [(module._forward_hooks, module._forward_pre_hooks) for module in model.modules()] == hooks
    assert all(parameter.grad is None for parameter in model.parameters())


def places_of(rows, cols, windows, queries, keys, generator):
    """Any places: each patch is the query of one window, and the key of any number of them."""
    asked = torch.full((windows * queries,), -1)
    asked[torch.randperm(windows * queries, generator=generator)[: rows * cols]] = torch.arange(rows * cols)
    cells = rows // 2 * (cols // 2)
    seen = torch.stack([torch.randperm(cells + 5, generator=generator)[:keys] for _ in range(windows)])
    seen = seen.where(seen < cells, -1)
    return WindowPlaces(Places((rows, cols), asked.view(windows, queries)), Places((rows // 2, cols // 2), seen))


@given(st.integers(0, 2**32), st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_maps_on_the_image(seed, batch):
    """The weight of a pair of patches is that in the window in which the first asks, and 0 where it lacks the other."""
    generator = torch.Generator().manual_seed(seed)
    places = places_of(4, 6, 5, 7, 4, generator)
    attn = torch.rand(batch * 5, 2, 7, 4, generator=generator)
    want = np.zeros((batch, 2, 24, 6), dtype=np.float32)
    for image, window, query, key in np.ndindex(batch, 5, 7, 4):
        asked, seen = int(places.queries.patches[window, query]), int(places.keys.patches[window, key])
        if asked >= 0 and seen >= 0:
            want[image, :, asked, seen] = attn[image * 5 + window, :, query, key]
    whole = places.on_image(attn)
    np.testing.assert_array_equal(whole, want)
    assert torch.equal(places.on_image(attn, queries=[5, 23]), whole[:, :, [5, 23]])


def test_maps_of_a_model_on_the_image():
    """Of two images whose patches hold nothing but where they are: each sees the patches of its own window."""
    model = timm_swin().eval()
    images = torch.randn(2, 3, 32, 64)
    each = window_places(model, images)["layers.0.blocks.1.attn"]
    with torch.no_grad(), dropkey.capture(model) as maps:
        model(images)
    attn = maps["layers.0.blocks.1.attn"]
    whole = each.on_image(attn)
    torch.testing.assert_close(whole.sum(-1), torch.ones(2, 1, 128))
    for image, window in np.ndindex(2, 8):
        patches = each.keys.patches[window]
        assert torch.equal(whole[image, 0][patches][:, patches], attn[image * 8 + window, 0])
    with pytest.raises(dropkey.ArgumentError, match="8 windows of 16 queries and 16 keys an image, got maps of shape"):
        each.on_image(attn[:7])
    with pytest.raises(dropkey.ArgumentError, match=r"queries must be patches 0 to 127, got \[128\]"):
        each.on_image(attn, queries=[128])


@pytest.mark.parametrize("cells", [(1, 1), (2, 1), (3, 2)])
def test_pooled_without_the_whole_map(cells):
    generator = torch.Generator().manual_seed(0)
    places = places_of(4, 6, 5, 7, 4, generator)
    attn = torch.rand(5, 2, 7, 4, generator=generator)
    queries, keys = TokenGrid(places.queries.grid, 0), TokenGrid(places.keys.grid, 0)
    torch.testing.assert_close(pool_windows(attn, places, *cells), pool(places.on_image(attn), queries, keys, *cells))
