"""Captured maps against those that the same model computes itself once its attention is not fused."""

from functools import partial

import pytest
import timm
import torch
import torchvision
import transformers
from torch import nn

import dropkey
import dropkey.models

SIZES = {"img_size": 32, "depth": 2, "embed_dim": 64, "num_heads": 2, "num_classes": 3}
SWIN = {"img_size": 32, "window_size": 4, "depths": (2, 2), "num_heads": (1, 2), "embed_dim": 16, "num_classes": 3}
CONFIG = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
DETR = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_queries": 5,
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
}


def captured(model, *inputs, **keywords):
    with torch.no_grad(), dropkey.capture(model) as maps:
        model(*inputs, **keywords)
    return maps


def weights_of_timm(model, images):
    """Maps as the modules' dropout of weights gets them once they do not call torch's attention."""
    seen = {}
    hooks = []
    for name, module in model.named_modules():
        if hasattr(module, "attn_drop") and isinstance(module.attn_drop, nn.Module):
            module.fused_attn = False
            # Dropout of DropKey's sites and of the modules is the identity here: what goes in is the map.
            take = partial(lambda name, module, args: seen.__setitem__(name, args[0]), name)
            hooks.append(module.attn_drop.register_forward_pre_hook(take))
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return seen


TIMM = {
    "ViT": ("vit_small_patch16_224", SIZES, (32, 32)),
    "ViT, not square": ("vit_small_patch16_224", {**SIZES, "img_size": (32, 64)}, (32, 64)),
    "DeiT, distilled": ("deit_small_distilled_patch16_224", SIZES, (32, 32)),
    "DINOv2, registers": ("vit_small_patch14_reg4_dinov2", {**SIZES, "img_size": 28}, (28, 28)),
    "EVA-02": ("eva02_tiny_patch14_224", {**SIZES, "img_size": 28}, (28, 28)),
    "ViT, rotary": ("vit_small_patch16_rope_224", SIZES, (32, 32)),
    "BEiT, biases": ("beit_base_patch16_224", SIZES, (32, 32)),
    "Swin, windows": ("swin_tiny_patch4_window7_224", SWIN, (32, 32)),
}


@pytest.mark.parametrize("family", TIMM)
def test_timm(family):
    name, sizes, shape = TIMM[family]
    torch.manual_seed(0)
    model = timm.create_model(name, **sizes).eval()
    images = torch.randn(2, 3, *shape)
    maps = captured(model, images)
    want = weights_of_timm(model, images)
    assert set(want) <= set(maps)
    assert len(want) >= 2
    for site, attn in want.items():
        torch.testing.assert_close(maps[site], attn.reshape(maps[site].shape), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["t2t_vit_7", "ceit_tiny"])
@pytest.mark.filterwarnings("ignore:not captured:UserWarning")  # CeiT's attention over layers
def test_our_backbones(name):
    """They call torch's attention alone, so the map is written out from what the qkv layer gives."""
    torch.manual_seed(0)
    model, seen = timm.create_model(name, img_size=32, num_classes=3).eval(), []
    for block in model.blocks:
        block.attn.qkv.register_forward_hook(lambda module, args, qkv: seen.append(qkv))
    maps = captured(model, torch.randn(2, 3, 32, 32))
    for qkv, block, ours in zip(seen, model.blocks, maps.values(), strict=True):
        q, k, _ = qkv.double().chunk(3, -1)
        q, k = (each.unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2) for each in (q, k))
        want = (block.attn.scale * q @ k.mT).softmax(-1)
        torch.testing.assert_close(ours.double(), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("training", [False, True])
def test_deepvit_by_its_own_mixing(norm, training):
    torch.manual_seed(0)
    model = timm.create_model("deepvit_16b", **{**SIZES, "embed_dim": 48, "num_heads": 3}, norm=norm).train(training)
    for block in model.blocks:
        block.attn.map_scale = 0.25
    images, before = torch.randn(2, 3, 32, 32), {n: b.clone() for n, b in model.named_buffers()}
    maps = captured(model, images)
    softmax = [module for module in model.modules() if hasattr(module, "map_scale")]
    counts = [b for n, b in model.named_buffers() if n.endswith("num_batches_tracked")]
    assert all(int(count) == int(training) for count in counts)  # once, though the maps were computed twice
    model.load_state_dict(before, strict=False)
    seen = []
    for module in softmax:
        module.attn_drop.p = 1e-12 if training else 0.0  # what drops weights is not fused
        module.reattention.register_forward_hook(lambda mixer, args, mixed: seen.append(0.25 * mixed))
    with torch.no_grad(), dropkey.capture(model, stage="softmax") as plain:
        model(images)
    if not training:
        with torch.no_grad():
            seen = [0.25 * m.reattention(attn) for m, attn in zip(softmax, plain.values(), strict=True)]
    for ours, theirs in zip(maps.values(), seen, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_class", ["ViTModel", "Dinov2WithRegistersModel", "BeitModel"])
def test_transformers(model_class):
    torch.manual_seed(0)
    build = getattr(transformers, model_class)
    extra = {"num_register_tokens": 3} if "Registers" in model_class else {}
    model = build(build.config_class(**CONFIG, **extra)).eval()
    images = torch.randn(2, 3, 32, 32)
    maps = captured(model, images)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        want = model(images, output_attentions=True).attentions
    assert len(maps) == len(want) == 2
    for ours, theirs in zip(maps.values(), want, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_cross_attention_of_detr():
    torch.manual_seed(0)
    backbone = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], out_features=["stage2"])
    model = transformers.DetrModel(transformers.DetrConfig(**DETR, backbone_config=backbone)).eval()
    images = torch.randn(2, 3, 64, 96)
    mask = torch.ones(2, 64, 96, dtype=torch.long)
    mask[1, :, 48:] = 0
    maps = captured(model, images, pixel_mask=mask)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        want = model(images, pixel_mask=mask, output_attentions=True)
    names = {"encoder": want.encoder_attentions, "decoder": want.decoder_attentions, "cross": want.cross_attentions}
    ours = dict(zip(names, maps.values(), strict=True))
    for kind, (theirs,) in names.items():
        torch.testing.assert_close(ours[kind], theirs, rtol=1e-5, atol=1e-6)
    assert ours["cross"].shape[2] == 5 < ours["cross"].shape[3]


@pytest.mark.parametrize("fast", [False, True])
def test_multihead_attention(fast):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(16, 2, batch_first=True).eval()
    x, padding = torch.randn(2, 5, 16), torch.zeros(2, 5, dtype=torch.bool)
    padding[1, 3:] = True
    want = module(x, x, x, padding, average_attn_weights=False)[1]
    with torch.set_grad_enabled(not fast):
        plain = module(x, x, x, padding, need_weights=False)[0]
        with dropkey.capture(module) as maps:
            out = module(x, x, x, padding, need_weights=False)[0]
    assert torch.equal(out, plain)
    torch.testing.assert_close(maps[""], want, rtol=1e-5, atol=1e-6)


def forced(module, args, kwargs):
    return args, {**kwargs, "need_weights": True, "average_attn_weights": False}


@pytest.mark.parametrize("build", ["torchvision ViT", "nn.TransformerEncoder", "nn.TransformerDecoder"])
def test_models_of_multihead_attention(build):
    torch.manual_seed(0)
    if build == "torchvision ViT":
        model, inputs = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32), [torch.randn(2, 3, 32, 32)]
    elif build == "nn.TransformerEncoder":
        model = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)
        inputs = [torch.randn(2, 6, 16)]
    else:
        model = nn.TransformerDecoder(nn.TransformerDecoderLayer(16, 2, 32, batch_first=True), 2)
        inputs = [torch.randn(2, 5, 16), torch.randn(2, 6, 16)]
    model.eval()
    with torch.no_grad():
        plain = model(*inputs)
        with dropkey.capture(model) as maps:
            out = model(*inputs)
    assert torch.equal(out, plain)
    seen = []
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            module.register_forward_pre_hook(forced, with_kwargs=True)
            module.register_forward_hook(lambda module, args, out: seen.append(out[1]))
    model(*inputs)  # with gradients: torch's fast path would run around the hooks
    assert len(seen) == len(maps) > 0
    for ours, theirs in zip(maps.values(), seen, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_differential_attention_has_two_maps_a_head():
    torch.manual_seed(0)
    model = timm.create_model("vit_dlittle_patch16_reg1_gap_256", **SIZES).eval()
    maps = captured(model, torch.randn(2, 3, 32, 32))
    first, second = maps["blocks.0.attn"]
    assert first.shape == second.shape == (2, 2, 5, 5)
    torch.testing.assert_close(first.sum(-1), torch.ones(2, 2, 5))
