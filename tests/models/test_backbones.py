"""The backbones keep timm's conventions, and dropkey acts on all of their blocks."""

import pytest
import timm
import torch

import dropkey
from dropkey.models import ceit, deepvit, t2t_vit
from dropkey.ops.cpu import library

NAMES = [*t2t_vit.VARIANTS, *ceit.VARIANTS, *deepvit.VARIANTS, *deepvit.PLAIN_VARIANTS]
# One shallow model of each kind: performer, transformer, CeiT, convolutional stem with some and with all blocks mixed.
SHALLOW = {
    "t2t_vit_7": {"depth": 3},
    "t2t_vit_t_14": {"depth": 3, "embed_dim": 48, "num_heads": 4},
    "ceit_tiny": {"depth": 3, "embed_dim": 48},
    "deepvit_s": {"depth": 3, "embed_dim": 48, "num_heads": 4, "reattention": 2},
    "deepvit_16b": {"depth": 3, "embed_dim": 48, "num_heads": 4},
    "vit_16b": {"depth": 3, "embed_dim": 48, "num_heads": 4},
}
each = pytest.mark.parametrize("name", SHALLOW)
SIZE = (32, 48)  # not square: rows and columns must not be mixed up


def build(name, **kwargs):
    torch.manual_seed(0)
    return timm.create_model(name, img_size=SIZE, num_classes=5, **{**SHALLOW[name], **kwargs})


def images(batch=2, seed=1):
    return torch.randn(batch, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
def test_every_block_of_every_variant_is_a_site(name):
    model = timm.create_model(name, device="meta")
    handle = dropkey.apply(model, dropkey.DropKey(0.3))
    sites = handle.sites
    assert [site.name for site in sites] == [f"blocks.{index}.attn" for index in range(len(model.blocks))]
    assert [site.block_index for site in sites] == list(range(len(model.blocks)))
    assert sites[0].drop_ratio == 0.3
    assert sites[-1].drop_ratio == 0


@each
def test_verify_proves_that_dropkey_acts(name):
    model = build(name)
    handle = dropkey.apply(model, dropkey.DropKey(0.3, schedule="constant", pattern=dropkey.Block(window_size=1)))
    checks = handle.verify(images()).checks
    assert len(checks) == 3
    assert all(check.num_calls == 1 for check in checks)


def test_attention_that_is_left_alone_is_named():
    handle = dropkey.apply(build("t2t_vit_t_14"), dropkey.DropKey(0.3))
    assert handle.unknown == ["patch_embed.stage1.attn (TokenAttention)", "patch_embed.stage2.attn (TokenAttention)"]
    assert dropkey.apply(build("ceit_tiny"), dropkey.DropKey(0.3)).unknown == ["lca (LayerwiseClassAttention)"]
    assert dropkey.apply(build("t2t_vit_7"), dropkey.DropKey(0.3)).unknown == []


@pytest.mark.skipif(library.unavailable() is not None, reason=str(library.unavailable()))
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["deepvit_s", "deepvit_16b"])
def test_deepvit_is_fused_and_the_same_unfused(name, training, monkeypatch):
    """Outputs, gradients and statistics; a mixing that somebody listens to is not fused."""
    calls, results = [], []
    right = deepvit.attend_mixed
    monkeypatch.setattr(deepvit, "attend_mixed", lambda *args, **kwargs: calls.append(args) or right(*args, **kwargs))
    for listens in (False, True):
        model = build(name).train(training)
        mixers = [block.attn.reattention for block in model.blocks if block.attn.reattention is not None]
        for mixer in mixers if listens else []:
            mixer.register_forward_hook(lambda module, args, maps: None)
        out = model(images())
        out.square().sum().backward()
        assert len(calls) == len(mixers)
        results.append([out, *(p.grad for p in model.parameters()), *model.buffers()])
    for one, other in zip(*results, strict=True):
        assert (one - other).abs().max() <= 1e-3 * (1 + other.abs().max())


@each
def test_apply_and_remove_leave_no_trace(name):
    model = build(name).eval()
    classes = [type(module) for module in model.modules()]
    keys, before = list(model.state_dict()), model(images())
    handle = dropkey.apply(model, dropkey.DropKey(0.3))
    assert torch.equal(model(images()), before)
    handle.remove()
    assert [type(module) for module in model.modules()] == classes
    assert list(model.state_dict()) == keys
    assert torch.equal(model(images()), before)


@each
def test_head_features_and_pooling(name):
    model = build(name).eval()
    features = model.forward_features(images())
    assert features.shape == (2, 1 + 2 * 3, model.num_features)
    assert torch.equal(model.forward_head(features), model(images()))
    assert model.forward_head(features, pre_logits=True).shape == (2, model.num_features)
    model.reset_classifier(7)
    assert model(images()).shape == (2, 7)
    model.reset_classifier(0)
    assert model(images()).shape == (2, model.num_features)
    assert model.num_prefix_tokens == 1
    assert model.patch_embed.grid_size == (2, 3)
    assert "cls_token" in model.no_weight_decay()


@each
def test_intermediates(name):
    model = build(name).eval()
    final, maps = model.forward_intermediates(images(), indices=[0, 2])
    assert [tuple(each_map.shape) for each_map in maps] == [(2, model.num_features, 2, 3)] * 2
    assert torch.equal(final, model.forward_features(images()))
    pairs = model.forward_intermediates(
        images(), indices=2, return_prefix_tokens=True, norm=True, output_fmt="NLC", intermediates_only=True
    )
    assert [tuple(tokens.shape) for tokens in pairs[1]] == [(2, 6, model.num_features), (2, 1, model.num_features)]
    as_map = pairs[1][0].mT.reshape(2, -1, 2, 3)
    assert torch.allclose(as_map, final[:, 1:].mT.reshape(2, -1, 2, 3), atol=1e-6)
    early = model.forward_intermediates(images(), indices=[0], stop_early=True, intermediates_only=True)
    assert torch.equal(early[0], maps[0])
    as_dict = model.forward_intermediates(images(), indices=[0, 2], output_dict=True, return_prefix_tokens=True)
    assert torch.equal(as_dict["image_features"], final)
    assert torch.equal(as_dict["image_intermediates"][1], maps[1])
    assert as_dict["image_intermediates_prefix"][0].shape == (2, 1, model.num_features)


@each
def test_features_only(name):
    torch.manual_seed(0)
    model = timm.create_model(name, img_size=SIZE, features_only=True, out_indices=(0, 2), **SHALLOW[name])
    assert [tuple(each_map.shape) for each_map in model(images())] == [
        (2, SHALLOW[name].get("embed_dim", 256), 2, 3)
    ] * 2


@each
def test_another_input_size(name):
    model = build(name).eval()
    model.set_input_size((48, 16))
    assert model.patch_embed.grid_size == (3, 1)
    assert model(torch.randn(2, 3, 48, 16)).shape == (2, 5)


@each
def test_checkpointing_changes_nothing(name):
    """Neither the output, nor a gradient, nor a statistic: batch norms count every batch once."""
    results = []
    for enabled in (False, True):
        model = build(name, drop_path_rate=0.2).train()
        dropkey.apply(model, dropkey.DropKey(0.3, schedule="constant"))
        model.set_grad_checkpointing(enabled)
        torch.manual_seed(2)
        out = model(images())
        out.square().sum().backward()
        results.append((out, {key: p.grad for key, p in model.named_parameters()}, dict(model.named_buffers())))
    (out, grads, buffers), (other_out, other_grads, other_buffers) = results
    assert torch.equal(out, other_out)
    assert grads.keys() == other_grads.keys()
    assert all(_same(grads[key], other_grads[key]) for key in grads)
    assert buffers.keys() == other_buffers.keys()
    assert all(torch.equal(buffers[key], other_buffers[key]) for key in buffers)


def _same(one, other):
    return one is other is None or torch.allclose(one, other, rtol=1e-4, atol=1e-6)


@each
def test_every_trained_parameter_gets_a_gradient(name):
    model = build(name).train()
    model(images()).square().sum().backward()
    for key, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
        # CeiT classifies class tokens, which the last feed-forward layer does not change: its gradient is 0, not None.
        # A batch norm takes away what a bias before it has added.
        is_unused = (name == "ceit_tiny" and key.startswith("blocks.2.mlp")) or key.endswith("reattention.theta.bias")
        assert parameter.grad is None or is_unused == (parameter.grad.abs().sum() == 0), key
    frozen = {key for key, parameter in model.named_parameters() if not parameter.requires_grad}
    if name == "t2t_vit_7":
        assert frozen == {"pos_embed", "patch_embed.stage1.w", "patch_embed.stage2.w"}
    else:
        assert frozen == ({"pos_embed"} if name.startswith("t2t") else set())


@each
def test_rates_reach_the_blocks(name):
    model = build(name, drop_path_rate=0.2, attn_drop_rate=0.1, proj_drop_rate=0.3)
    assert [block.attn.attn_drop.p for block in model.blocks] == [0.1] * 3
    assert [block.attn.proj_drop.p for block in model.blocks] == [0.3] * 3
    assert [getattr(block.drop_path1, "drop_prob", 0) for block in model.blocks] == pytest.approx([0, 0.1, 0.2])


def test_the_scale_of_t2t_vit_is_a_choice():
    default, scaled = build("t2t_vit_7").eval(), build("t2t_vit_7", qk_scale=0.01).eval()
    assert not torch.allclose(default(images()), scaled(images()))
    same = build("t2t_vit_7", qk_scale=64**-0.5).eval()
    assert torch.equal(default(images()), same(images()))


def test_sinusoid_table():
    table = t2t_vit.sinusoid_table(3, 4)
    angles = torch.tensor([[0.0, 0.0], [1.0, 0.01], [2.0, 0.02]])
    assert torch.allclose(table[0, :, 0::2], angles.sin())
    assert torch.allclose(table[0, :, 1::2], angles.cos())
    assert torch.equal(build("t2t_vit_7").pos_embed, t2t_vit.sinusoid_table(7, 256))


def test_a_performer_approximates_softmax_attention():
    """With many random directions, its features give the weights of softmax attention with scale 1."""
    from dropkey.models.token_stages import TokenPerformer

    torch.manual_seed(0)
    stage = TokenPerformer(8, 4, kernel_ratio=4096)
    with torch.no_grad():
        stage.w.normal_()
    q, k, v = torch.randn(3, 2, 9, 4).mul(0.5).unbind(0)
    expected = (q @ k.mT).softmax(-1) @ v
    assert (stage._attend(q, k, v) - expected).abs().max() < 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_name": "t2t_vit_7", "img_size": 40}, "multiple of the patch size"),
        ({"model_name": "t2t_vit_7", "patch_size": 8}, "patch size 16"),
        ({"model_name": "t2t_vit_7", "stage": "perfomer"}, "did you mean 'performer'"),
        ({"model_name": "deepvit_16b", "reattention": 17}, "0 to 16"),
        ({"model_name": "deepvit_16b", "norm": "bach"}, "did you mean 'batch'"),
    ],
)
def test_what_a_user_can_mend(arguments, message):
    with pytest.raises(dropkey.DropKeyError, match=message):
        timm.create_model(**arguments, device="meta")


def test_images_of_another_size_are_refused():
    for name in ("t2t_vit_7", "ceit_tiny", "deepvit_s"):
        with pytest.raises(dropkey.DropKeyError, match=r"\(32, 48\) pixels, got \(48, 32\)"):
            build(name)(images().mT)
