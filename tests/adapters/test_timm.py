"""timm's attention classes, wherever they sit: found, proved to drop, bit-equal when they should be, and undone."""

import pytest
import timm
import torch
from conftest import tiny_vit
from timm.layers import set_fused_attn

import dropkey
from dropkey.adapters.site import site_of

# name -> (arguments, prefix tokens)
FAMILIES = {
    "vit_tiny_patch16_224": ({}, 1),
    "vit_base_patch16_gap_224": ({}, 0),
    "vit_small_patch14_dinov2": ({}, 1),
    "vit_small_patch14_reg4_dinov2": ({}, 5),
    "deit_tiny_patch16_224": ({}, 1),
    "deit_tiny_distilled_patch16_224": ({}, 2),
    "deit3_small_patch16_224": ({}, 1),
    "eva02_tiny_patch14_224": ({}, 1),
    "eva_giant_patch14_224": ({}, 1),
    "vit_small_patch16_dinov3": ({}, 5),
    "vit_base_patch16_rope_reg1_gap_256": ({}, 1),
    "vit_small_patch16_rope_224": ({}, 1),
    "vit_dwee_patch16_reg1_gap_256": ({}, 1),  # differential attention
    "vit_pwee_patch16_reg1_gap_256": ({}, 1),  # attention and MLP side by side in one module
    "vit_dpwee_patch16_reg1_gap_256": ({}, 1),  # both
    "flexivit_small": ({}, 1),
    "vit_tiny_patch16_224 qk_norm": ({"qk_norm": True}, 1),
}


def build(family, **more):
    arguments, _ = FAMILIES[family]
    return tiny_vit(family.split()[0], **{"init_values": 1.0, **arguments, **more})  # no LayerScale that hides effects


@pytest.fixture(params=[True, False], ids=["fused", "unfused"])
def _fused(request):
    set_fused_attn(request.param)
    yield
    set_fused_attn(True)


@pytest.mark.usefixtures("_fused")
@pytest.mark.parametrize("family", FAMILIES)
def test_family(family, images):
    model = build(family)
    classes = [type(module) for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.eval()
    untouched = model(images)
    handle = dropkey.apply(model, dropkey.DropKey(0.6))

    module_name = "blocks.{}" if "pwee" in family else "blocks.{}.attn"
    assert [site.name for site in handle.sites] == [module_name.format(i) for i in range(3)]
    assert [site.block_index for site in handle.sites] == [0, 1, 2]
    assert handle.drop_ratios == pytest.approx([0.6, 0.3, 0.0])
    assert handle.unknown == []
    assert torch.equal(model(images), untouched)
    checks = handle.verify(images).checks
    assert [check.num_calls > 0 for check in checks] == [True, True, False]
    assert checks[0].dropped_share == pytest.approx(0.6, abs=0.05)
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    handle.remove()
    assert [type(module) for module in model.modules()] == classes
    assert torch.equal(model(images), untouched)


@pytest.mark.usefixtures("_fused")
@pytest.mark.parametrize("family", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224", "vit_dpwee_patch16_reg1_gap_256"])
def test_ratio_zero_is_bit_equal_in_training(family, images):
    model = build(family)
    torch.manual_seed(0)
    untouched = model(images)
    handle = dropkey.apply(model, dropkey.DropKey(0.0))
    torch.manual_seed(0)
    assert torch.equal(model(images), untouched)
    handle.drop_ratios = [0.5, 0.0, 0.0]
    assert not torch.equal(model(images), untouched)
    handle.disable()
    torch.manual_seed(0)
    assert torch.equal(model(images), untouched)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pattern", [dropkey.Block(3), dropkey.Cross(3), "token", "column"])
def test_grid_and_prefix_tokens_are_found(family, pattern, images):
    model = build(family)
    handle = dropkey.apply(model, dropkey.DropKey(0.4, schedule="constant", pattern=pattern))
    handle.verify(images)
    site = next(site for site in map(site_of, model.modules()) if site)
    assert (site.grid_size, site.num_prefix_tokens) == ((8, 8), FAMILIES[family][1])


def test_non_square_grid(images):
    model = tiny_vit(img_size=(32, 16))
    handle = dropkey.apply(model, dropkey.DropKey(0.4, pattern="block"))
    handle.verify(images[..., :16])
    assert model.blocks[0].attn._dropkey_site.grid_size == (8, 4)


def test_a_grid_that_does_not_fit_is_named(images):
    model = tiny_vit(dynamic_img_size=True)
    dropkey.apply(model, dropkey.DropKey(0.4, pattern="block"), grid_size=(8, 8))
    with pytest.raises(dropkey.SiteError, match=r"grid_size 8 x 8 and 1 prefix tokens do not make 17 keys"):
        model(images[..., :16, :16])


def test_grid_by_hand(images):
    model = tiny_vit(dynamic_img_size=True)
    handle = dropkey.apply(model, dropkey.DropKey(0.4, pattern="block"), grid_size=(4, 4), num_prefix_tokens=1)
    handle.verify(images[..., :16, :16])


def test_both_maps_of_differential_attention_lose_the_same_keys(images):
    """Fused or not, the two maps share their mask: the outputs under one seed are the same."""
    outs = []
    for fused in (True, False):
        set_fused_attn(fused)
        model = build("vit_dwee_patch16_reg1_gap_256", init_values=1.0)
        dropkey.apply(model, dropkey.DropKey(0.6, schedule="constant"))
        torch.manual_seed(3)
        outs.append(model(images))
    set_fused_attn(True)
    torch.testing.assert_close(*outs)


def test_parallel_attentions_are_one_block(images):
    model = tiny_vit("vit_small_patch16_18x2_224")
    handle = dropkey.apply(model, dropkey.DropKey(0.4))
    assert [site.block_index for site in handle.sites] == [0, 0, 1, 1, 2, 2]
    assert handle.drop_ratios == pytest.approx([0.4, 0.4, 0.2, 0.2, 0.0, 0.0])
    handle.verify(images)


def test_an_attention_pool_without_an_adapter_is_named():
    class PoolAttention(torch.nn.Linear):
        pass

    model = torch.nn.ModuleDict({"vit": tiny_vit(), "pool": PoolAttention(2, 2)})
    handle = dropkey.apply(model, dropkey.DropKey(0.4))
    assert len(handle.sites) == 3
    assert handle.unknown == ["pool (PoolAttention)"]
    assert "Not reached, nothing is dropped there: pool (PoolAttention)" in str(handle)


@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.usefixtures("_fused")
def test_attention_dropout(renormalize, images):
    model = tiny_vit()
    handle = dropkey.apply(model, dropkey.AttentionDropout(0.5, schedule="constant", renormalize=renormalize))
    assert [check.dropped_share for check in handle.verify(images).checks] == pytest.approx([0.5] * 3, abs=0.05)
    model.eval()
    untouched = tiny_vit().eval()
    assert torch.equal(model(images), untouched(images))


def test_own_attention_dropout_gives_way_and_comes_back(images):
    model = tiny_vit(attn_drop_rate=0.25)
    handle = dropkey.apply(model, dropkey.DropKey(0.3))
    attention = model.blocks[0].attn
    assert attention.attn_drop.p == 0
    assert "attn_drop 0.25 set to 0" in str(handle)
    handle.verify(images)
    handle.disable()
    assert attention.attn_drop.p == 0.25
    handle.enable()
    assert attention.attn_drop.p == 0
    handle.remove()
    assert attention.attn_drop.p == 0.25


def test_own_dropout_comes_back_after_the_last_of_two(images):
    model = tiny_vit("vit_dwee_patch16_reg1_gap_256", attn_drop_rate=0.25)
    attention = model.blocks[0].attn
    one = dropkey.apply(model, dropkey.DropKey(0.3))
    other = dropkey.apply(model, dropkey.AttentionDropout(0.3))
    one.remove()
    assert (attention.attn_drop.p, attention.attn_drop_p) == (0, 0)
    other.remove()
    assert (attention.attn_drop.p, attention.attn_drop_p) == (0.25, 0.25)


def test_the_readme_model():
    model = timm.create_model("vit_small_patch16_224")
    handle = dropkey.apply(model, dropkey.DropKey(0.3))
    assert handle.drop_ratios == pytest.approx([0.3 * (11 - i) / 11 for i in range(12)])
    lines = str(handle).splitlines()
    assert len(lines) == 14
    assert lines[1].split("  ")[0] == "site"
    assert lines[2].split() == ["blocks.0.attn", "self", "0", "0.3", *lines[2].split()[4:]]
    assert lines[-1].split()[:4] == ["blocks.11.attn", "self", "11", "0"]
