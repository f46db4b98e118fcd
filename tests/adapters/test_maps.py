"""Maps of a training step: those that the blocks attend with, and gradients through them."""

import itertools

import pytest
import torch
from conftest import tiny_vit

import dropkey
from dropkey.adapters.maps import attention_maps
from dropkey.errors import SiteError
from dropkey.ops.map_similarity import map_similarity


def by_hand(model, images, seed):
    """Loss on the maps of a plain ViT with DropKey, written with torch alone; the masks are drawn as the sites do."""
    torch.manual_seed(seed)
    x = model.patch_embed(images)
    x = torch.cat([model.cls_token.expand(len(x), -1, -1), x], 1) + model.pos_embed
    maps = []
    for block, site in zip(model.blocks, dropkey.handle(model).sites, strict=True):
        attention = block.attn
        batch, tokens, width = x.shape
        q, k, v = attention.qkv(block.norm1(x)).reshape(batch, tokens, 3, 3, width // 3).permute(2, 0, 3, 1, 4)
        logits = q @ k.transpose(-2, -1) / (width // 3) ** 0.5
        if site.drop_ratio > 0:
            number = dropkey.philox.draw_seed(torch.device("cpu"))
            keep = dropkey.keep_mask(batch, 3, tokens, tokens, drop_ratio=site.drop_ratio, seed=number)
            logits = logits.masked_fill(~keep, -1e30)
        maps.append(logits.softmax(-1))
        x = x + attention.proj((maps[-1] @ v).transpose(1, 2).reshape(batch, tokens, width))
        x = x + block.mlp(block.norm2(x))
    similarities = []
    for one, other in itertools.pairwise(maps):
        norms = (one.norm(dim=1) * other.norm(dim=1)).clamp(min=1e-12)  # 0 where all heads have dropped a key
        similarities.append(((one * other).sum(1) / norms).mean())
    return sum(similarities) / len(similarities)


def gradients(model):
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("ratio", [0.0, 0.4])
@pytest.mark.parametrize("backend", ["auto", "reference", "sdpa"])
def test_gradients_against_a_hand_written_vit(ratio, backend, images):
    model = tiny_vit().double()
    dropkey.apply(model, dropkey.DropKey(ratio, schedule=[ratio, 0.0, ratio]), backend=backend)
    torch.manual_seed(3)
    with attention_maps(model) as maps:
        model(images.double())
    loss = map_similarity(maps)
    loss.backward()
    ours = gradients(model)
    expected = by_hand(model, images.double(), 3)
    expected.backward()
    theirs = gradients(model)
    torch.testing.assert_close(loss, expected)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours.get(name, torch.zeros_like(gradient)), gradient, rtol=1e-6, atol=1e-12)
    assert ours["blocks.0.attn.qkv.weight"].abs().max() > 1e-6
    assert "head.weight" not in ours


def test_listening_changes_no_output(vit, images):
    with dropkey.apply(vit, dropkey.DropKey(0.3)):
        torch.manual_seed(0)
        want = vit(images)
        torch.manual_seed(0)
        with attention_maps(vit):
            out = vit(images)
    torch.testing.assert_close(out, want)


def test_the_modules_own_dropout_stays_on(images):
    model = tiny_vit(attn_drop_rate=0.5)
    dropkey.apply(model, dropkey.DropKey(0.3)).disable()
    outs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        with attention_maps(model) as maps:
            outs.append(model(images))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])
    torch.testing.assert_close(maps[0].sum(-1), torch.ones(2, 3, 65))  # the map is the one before dropout


def test_maps_are_those_after_re_attention(vit, images):
    dropkey.apply(vit, dropkey.ReAttention(norm="layer"))
    dropkey.apply(vit, dropkey.DropKey(0.3))
    inside = []
    for block in vit.blocks:
        block.attn.reattention.gate.data.fill_(0.7)
        block.attn.reattention.register_forward_hook(lambda module, args, change: inside.append(args[0] + change))
    with attention_maps(vit) as maps:
        vit(images)
    for ours, theirs in zip(maps, inside, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert any((m.sum(-1) - 1).abs().max() > 1e-3 for m in maps)


def test_maps_are_there_where_a_fused_call_would_make_none(vit, images):
    dropkey.apply(vit, dropkey.ReAttention())
    with attention_maps(vit) as maps:
        vit(images)
    assert [tuple(m.shape) for m in maps] == [(2, 3, 65, 65)] * 3


def test_maps_of_deepvit_are_those_that_it_mixes_itself():
    timm = pytest.importorskip("timm")
    pytest.importorskip("dropkey.models")
    model = timm.create_model("deepvit_16b", img_size=32, depth=3, num_classes=5)
    dropkey.apply(model, dropkey.DropKey(0.3))
    mixed = []
    for block in model.blocks:
        block.attn.reattention.register_forward_hook(lambda module, args, maps: mixed.append(maps))
    with attention_maps(model) as maps:
        model(torch.randn(2, 3, 32, 32))
    assert all(one is other for one, other in zip(maps, mixed, strict=True))
    map_similarity(maps).backward()
    assert model.blocks[0].attn.reattention.theta.weight.grad.abs().max() > 0


def test_token_pattern_gives_whole_maps(vit, images):
    dropkey.apply(vit, dropkey.DropKey(0.5, schedule="constant", pattern="token"))
    with attention_maps(vit) as maps:
        vit(images)
    assert {tuple(m.shape) for m in maps} == {(2, 3, 65, 65)}
    assert (maps[0][0, 0, 0] > 0).sum() == round(0.5 * 65)


def test_nothing_stays_behind(vit, images):
    handle = dropkey.apply(vit, dropkey.DropKey(0.3))
    with pytest.raises(SiteError, match=r"blocks.0.attn has made 0 attention maps"), attention_maps(vit):
        pass
    with pytest.raises(SiteError, match="made 2 attention maps"), attention_maps(vit):
        assert [vit(images) for _ in range(2)]
    handle.remove()
    with pytest.raises(SiteError, match="this VisionTransformer has none"), attention_maps(vit):
        vit(images)


def test_blocks_of_different_shapes():
    model = tiny_vit()
    dropkey.apply(model, dropkey.DropKey(0.1))
    model.blocks[1].register_forward_pre_hook(lambda module, args: (args[0][:, :-1],))
    different = "blocks.0.attn and blocks.1.attn have attention maps of different shapes"
    with pytest.raises(SiteError, match=different), attention_maps(model):
        model(torch.randn(1, 3, 32, 32))
