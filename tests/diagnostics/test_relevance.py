"""Relevance of a class against the same computed on a model whose maps are on the path of its gradients."""

import pytest
import timm
import torch
from conftest import tiny_vit
from torch import nn

import dropkey
import dropkey.models
from dropkey.diagnostics import class_relevance, class_rollout


def written_out(model, image, target):
    """By eager attention, whose weights the dropout modules are given: gradients with respect to these very tensors."""
    seen = []
    for block in model.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    logits = model(image)
    return class_rollout([attn.detach() for attn in seen], torch.autograd.grad(logits[0, target], seen))


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("trainable", [False, True])
def test_against_gradients_of_the_maps_themselves(applied, trainable, images):
    model = tiny_vit()
    model.requires_grad_(trainable)
    if applied:
        dropkey.apply(model, dropkey.DropKey(0.3))
    relevance = class_relevance(model, images, [4, 1])
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    for place, target in enumerate([4, 1]):
        plain = tiny_vit().eval()
        want = written_out(plain, images[place : place + 1], target)
        torch.testing.assert_close(relevance[place], want[0], rtol=1e-4, atol=1e-7)
    assert (relevance - torch.eye(65)).abs().max() > 1e-4


def test_the_predicted_class_by_default(vit, images):
    predicted = vit.eval()(images).argmax(-1).tolist()
    assert torch.equal(class_relevance(vit, images), class_relevance(vit, images, predicted))
    with torch.inference_mode():
        assert torch.equal(class_relevance(vit, images), class_relevance(vit, images, predicted))


def test_after_re_attention(vit, images):
    """Against a ViT written with torch alone, whose maps after mixing are on the path of the gradients."""
    dropkey.apply(vit, dropkey.ReAttention(norm="layer"))
    for block in vit.eval().blocks:
        block.attn.reattention.gate.data.fill_(0.7)
    relevance = class_relevance(vit, images[:1], [3])
    x = vit.patch_embed(images[:1])
    x = torch.cat([vit.cls_token, x], 1) + vit.pos_embed
    maps = []
    for block in vit.blocks:
        attention = block.attn
        q, k, v = attention.qkv(block.norm1(x)).reshape(1, 65, 3, 3, 16).permute(2, 0, 3, 1, 4)
        attn = (q @ k.mT / 4).softmax(-1)
        maps.append(attn + attention.reattention(attn))
        x = x + attention.proj((maps[-1] @ v).transpose(1, 2).reshape(1, 65, 48))
        x = x + block.mlp(block.norm2(x))
    score = vit.head(vit.norm(x)[:, 0])[0, 3]
    want = class_rollout([attn.detach() for attn in maps], torch.autograd.grad(score, maps))
    torch.testing.assert_close(relevance, want, rtol=1e-3, atol=1e-6)


def test_of_mixed_maps(images):
    """DeepViT's fused mixing against its mixing written out."""
    model = timm.create_model("deepvit_16b", img_size=32, depth=2, num_classes=5, embed_dim=48, num_heads=3).eval()
    fused = class_relevance(model, images[:1], [2])
    seen = []
    for block in model.blocks:
        block.attn.attn_drop.p = 1e-9
        block.attn.attn_drop.train()
        block.attn.reattention.register_forward_hook(lambda module, args, mixed: seen.append(mixed))
        block.attn.__dict__["training"] = True  # its own path without a fused call
        block.attn.reattention.eval()
    logits = model(images[:1])
    want = class_rollout([attn.detach() for attn in seen], torch.autograd.grad(logits[0, 2], seen))
    torch.testing.assert_close(fused, want, rtol=1e-3, atol=1e-6)


def test_what_has_no_relevance(vit, images):
    with pytest.raises(dropkey.ArgumentError, match="one for each of the 2 images, got 1"):
        class_relevance(vit, images, [0])
    with pytest.raises(dropkey.ArgumentError, match="classes must be 0 to 4, got 5"):
        class_relevance(vit, images, [0, 5])
    with pytest.raises(dropkey.SiteError, match="found no supported attention module"):
        class_relevance(nn.Conv2d(3, 3, 1), images)
    vit.head = nn.Identity()
    vit.forward_head = lambda x: {"features": x}
    with pytest.raises(dropkey.ArgumentError, match=r"returns logits \(B, classes\), got a dict"):
        class_relevance(vit, images)
