"""Reports: what they hold is what a capture and the measures give, and their figures can be drawn."""

import matplotlib.figure
import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers
from conftest import tiny_vit

import dropkey
from dropkey import diagnostics as measures
from dropkey.errors import ArgumentError, SiteError

NAMES = ["blocks.0.attn", "blocks.1.attn", "blocks.2.attn"]


@pytest.fixture(scope="module")
def wide():
    return torch.randn(2, 3, 16, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model():
    built = tiny_vit(img_size=(16, 32), class_token=True, reg_tokens=2)
    for block in built.blocks:
        block.attn.qkv.weight.data.mul_(6)
    return built


@pytest.fixture(scope="module")
def report(model, wide):
    return dropkey.diagnose(model, wide)


@pytest.fixture(scope="module")
def maps(model, wide):
    with torch.no_grad(), dropkey.capture(model.eval()) as captured:
        model(wide)
    return list(captured.values())


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_maps_and_places(report, maps, wide):
    assert report.model == "VisionTransformer"
    assert torch.equal(report.images, wide)
    assert [site.name for site in report.sites] == NAMES
    for site, attn in zip(report.sites, maps, strict=True):
        close(site.maps, attn)
        assert (site.kind, site.num_heads, site.shape) == ("self", 3, (35, 35))
        assert site.query_grid == site.key_grid == (4, 8)
        assert site.num_query_prefix == site.num_key_prefix == 3
        assert site.query_cell == site.key_cell == 1
    assert report.notes == ()


def test_measures_are_those_of_the_maps(report, maps, model, wide):
    for site, attn in zip(report.sites, maps, strict=True):
        close(site.measures["entropy"], measures.entropy(attn))
        close(site.measures["peak"], measures.peak(attn))
        close(site.measures["distance"], measures.attention_distance(attn, (4, 8), 3))
        close(site.measures["head_similarity"], measures.head_similarity(attn))
        close(site.measures["effective_rank"], measures.effective_rank(attn))
        close(site.measures["prefix_share"], measures.prefix_share(attn, 3))
        close(site.measures["sink_share"], measures.strongest_sink(attn).share)
        assert (site.measures["sink_value_norm"] > 0).all()
    close(report.similarity, measures.cross_layer_similarity(maps))
    close(report.rollout, measures.rollout(maps))
    assert report.rollout_site == 0
    for threshold, count in report.similar_blocks.items():
        assert count == sum(measures.similar_blocks(maps, threshold))
    features = []
    hooks = [block.register_forward_hook(lambda block, args, out: features.append(out)) for block in model.blocks]
    with torch.no_grad():
        model(wide)
    for hook in hooks:
        hook.remove()
    assert report.blocks == ("blocks.0", "blocks.1", "blocks.2")
    close(report.feature_similarity, measures.feature_similarity(features))
    close(report.measure("peak"), torch.stack([measures.peak(attn).mean() for attn in maps]))
    with pytest.raises(ArgumentError, match="no measure 'entrop'; did you mean 'entropy'"):
        report.measure("entrop")


def test_nothing_is_changed(model, wide):
    model.train()
    model.blocks[1].eval()
    modes = [module.training for module in model.modules()]
    classes = [type(module) for module in model.modules()]
    hooks = [dict(module._forward_hooks) for module in model.modules()]
    state = torch.random.get_rng_state()
    dropkey.diagnose(model, wide)
    assert [module.training for module in model.modules()] == modes
    assert [type(module) for module in model.modules()] == classes
    assert [dict(module._forward_hooks) for module in model.modules()] == hooks
    assert torch.equal(torch.random.get_rng_state(), state)
    model.eval()


def test_pooled_maps(model, wide, maps):
    """Cells of 3 x 3 patches, cut at the right and at the bottom."""
    report = dropkey.diagnose(model, wide, max_patches=6)
    site = report.sites[0]
    assert (site.query_cell, site.key_grid, site.maps.shape) == (3, (2, 3), (2, 3, 9, 9))
    cells = [*range(3)] + [3 + (row // 3) * 3 + col // 3 for row in range(4) for col in range(8)]
    attn, want = maps[0].double().numpy(), np.zeros((2, 3, 9, 9))
    for i, j in np.ndindex(35, 35):
        want[:, :, cells[i], cells[j]] += attn[:, :, i, j] / cells.count(cells[i])
    np.testing.assert_allclose(site.maps, want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(site.maps.sum(-1), torch.ones(2, 3, 9))
    assert report.rollout.shape == (2, 9, 9)
    close(site.measures["entropy"], measures.entropy(maps[0]))
    assert report.notes == (
        "maps of 3 of 3 sites are pooled to cells of 3 x 3 patches; their effective rank is that of the pooled maps",
    )


def test_windows_are_put_back_on_the_image():
    torch.manual_seed(0)
    sizes = {"img_size": (32, 64), "window_size": 4, "depths": (2, 2), "num_heads": (1, 2), "embed_dim": 16}
    model, images = timm.create_model("swin_tiny_patch4_window7_224", **sizes).eval(), torch.randn(2, 3, 32, 64)
    report = dropkey.diagnose(model, images)
    with torch.no_grad(), dropkey.capture(model) as maps:
        model(images)
    places = dropkey.diagnostics.window_places(model, images)
    site, name = report.sites[1], "layers.0.blocks.1.attn"
    assert (site.name, site.kind, site.shape, site.key_grid) == (name, "window", (16, 16), (8, 16))
    close(site.maps, places[name].on_image(maps[name]))
    close(site.measures["entropy"], measures.entropy(maps[name]).unflatten(0, (2, 8)).mean(1))
    assert torch.isnan(report.similarity).all()
    assert report.rollout is None
    assert report.notes == ("no rollout: its sites of self-attention do not all see the same tokens",)
    assert isinstance(report.figure("overlay"), matplotlib.figure.Figure)


def test_cross_attention():
    backbone = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], out_features=["stage2"])
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = transformers.DetrConfig(
        d_model=32, num_queries=4, backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False,
        backbone=None, **sizes,
    )  # fmt: skip
    report = dropkey.diagnose(transformers.DetrModel(config), torch.randn(1, 3, 32, 64))
    encoder, decoder, cross = report.sites
    assert encoder.key_grid == encoder.query_grid == cross.key_grid
    assert cross.key_grid[1] == 2 * cross.key_grid[0]
    assert (decoder.key_grid, decoder.query_grid, cross.query_grid) == (None, None, None)
    assert cross.num_query_prefix == decoder.num_key_prefix == 4
    assert torch.isnan(cross.measures["distance"]).all()
    assert torch.isnan(decoder.measures["prefix_share"]).all()
    assert report.figure("maps", sites=[cross.name], query=3)
    with pytest.raises(ArgumentError, match="are no patches of the image"):
        report.figure("maps", sites=[decoder.name])


def test_a_model_without_a_class_token(wide):
    model = timm.create_model(
        "vit_base_patch16_siglip_224", img_size=32, patch_size=8, embed_dim=48, num_heads=3, depth=2
    )
    report = dropkey.diagnose(model, torch.randn(1, 3, 32, 32))
    assert [site.kind for site in report.sites] == ["self", "self", "pool"]
    assert report.sites[0].num_key_prefix == 0
    assert report.sites[2].query_grid is None
    assert report.figure("maps")._suptitle.get_text().endswith("the mean over all queries")


@pytest.mark.parametrize("kind", ["maps", "overlay", "measures", "similarity"])
def test_figures(kind, report, tmp_path):
    figure = report.figure(kind)
    assert isinstance(figure, matplotlib.figure.Figure)
    figure.savefig(tmp_path / "figure.png", dpi=40)
    assert report.model in figure._suptitle.get_text()


def test_what_a_figure_shows(report):
    """The drawn map is the row of the query, prefix tokens left out."""
    figure = report.figure("maps", image=1, query=(2, 5), sites=[1, "blocks.2.attn"], heads=[2])
    drawn = [ax.images[0].get_array() for ax in figure.axes]
    for place, array in zip((1, 2), drawn, strict=True):
        want = report.sites[place].maps[1, 2, 3 + 2 * 8 + 5, 3:].reshape(4, 8)
        np.testing.assert_allclose(array, want)
    overlay = report.figure("overlay", query=7)
    assert [ax.get_title() for ax in overlay.axes] == ["image", *NAMES, "rollout"]
    depth = report.figure("measures", names=["peak"])
    np.testing.assert_allclose(depth.axes[0].lines[-1].get_ydata(), report.measure("peak"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "map"}, "no figure 'map'; did you mean 'maps'"),
        ({"image": 2}, "the report has images 0 to 1, got 2"),
        ({"query": 35}, r"blocks.0.attn has queries 0 to 34, got 35"),
        ({"query": (4, 0)}, r"blocks.0.attn has \(4, 8\) as queries, got \(4, 0\)"),
        ({"sites": ["blocks.3.attn"]}, r"sites must be 0 to 2 or of blocks.0.attn, "),
        ({"heads": [3]}, r"these sites have heads 0 to 2, got \[3\]"),
        ({"kind": "measures", "names": ["size"]}, "no measure 'size'"),
        ({"kind": "measures", "names": []}, "names is empty"),
    ],
)
def test_what_cannot_be_drawn(report, options, message):
    with pytest.raises(ArgumentError, match=message):
        report.figure(**options)


def test_the_table(report):
    lines = str(report).splitlines()
    assert lines[0] == "VisionTransformer, 2 images"
    assert lines[2].split()[:6] == ["blocks.0.attn", "self", "3", "35", "x", "35"]
    assert "Sites that attend as the site before does" in lines[-1]


def test_what_cannot_be_diagnosed(model):
    with pytest.raises(ArgumentError, match=r"takes images \(B, C, height, width\), got shape \(3, 16, 32\)"):
        dropkey.diagnose(model, torch.randn(3, 16, 32))
    with pytest.raises(ArgumentError, match="got a str"):
        dropkey.diagnose(model, "photo.jpg")
    with pytest.raises(SiteError, match="found no supported attention module"):
        dropkey.diagnose(torch.nn.Conv2d(3, 3, 1), torch.randn(1, 3, 8, 8))


def test_torchs_fast_path_is_looked_into():
    model = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32)
    report = dropkey.diagnose(model, torch.randn(1, 3, 32, 32))
    assert [site.key_grid for site in report.sites] == [(4, 4)] * 2
    assert [site.num_key_prefix for site in report.sites] == [1, 1]
