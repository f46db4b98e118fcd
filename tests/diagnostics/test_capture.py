"""What a capture shows, and that it changes nothing."""

import copy
import warnings

import pytest
import torch
from conftest import tiny_vit
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint
from torchvision.models.swin_transformer import SwinTransformer

import dropkey
from dropkey.adapters.maps import attention_maps
from dropkey.adapters.site import site_of
from dropkey.diagnostics import entropy, peak
from dropkey.errors import ArgumentError, SiteError

NAMES = ["blocks.0.attn", "blocks.1.attn", "blocks.2.attn"]


def seeded(model, images, seed=3):
    torch.manual_seed(seed)
    return model(images)


def queries_and_keys(model, images, seed=3):
    """What every block's qkv layer gives, from which the test computes maps itself."""
    seen = []
    hooks = [b.attn.qkv.register_forward_hook(lambda module, args, qkv: seen.append(qkv)) for b in model.blocks]
    seeded(model, images, seed)
    for hook in hooks:
        hook.remove()
    heads = [qkv.detach().unflatten(-1, (3, 3, 16)).permute(2, 0, 3, 1, 4) for qkv in seen]
    return [(q, k) for q, k, _ in heads]


@pytest.mark.parametrize("pattern", ["element", "column", "token"])
@pytest.mark.parametrize("gradients", [False, True])
def test_before_and_after_the_drop(pattern, gradients, vit, images):
    handle = dropkey.apply(vit, dropkey.DropKey(0.4, schedule=[0.4, 0.0, 0.2], pattern=pattern))
    vit.train()
    with torch.set_grad_enabled(gradients):
        plain = seeded(vit, images)
        with dropkey.capture(vit, stage="softmax") as before:
            first = seeded(vit, images)
        with dropkey.capture(vit) as after:
            second = seeded(vit, images)
        pairs = queries_and_keys(vit, images)
    assert torch.equal(plain, first)
    assert torch.equal(plain, second)
    torch.manual_seed(3)
    for (q, k), site in zip(pairs, handle.sites, strict=True):
        logits = q @ k.mT / 4
        torch.testing.assert_close(before[site.name], logits.softmax(-1), rtol=1e-5, atol=1e-6)
        if site.drop_ratio > 0:
            number = dropkey.philox.draw_seed(torch.device("cpu"))
            shape = (2, 3, 65, 65)
            keep = dropkey.keep_mask(*shape, drop_ratio=site.drop_ratio, pattern=pattern, seed=number)
            logits = logits.masked_fill(~keep, -torch.inf)
        torch.testing.assert_close(after[site.name], logits.softmax(-1), rtol=1e-5, atol=1e-6)
    assert not after[NAMES[0]].requires_grad


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_after_re_attention(norm, training, vit, images):
    dropkey.apply(vit, dropkey.DropKey(0.3, schedule="constant"))
    dropkey.apply(vit, dropkey.ReAttention(norm=norm))
    for block in vit.blocks:
        block.attn.reattention.gate.data.fill_(0.7)
    vit.train(training)
    buffers = {name: buffer.clone() for name, buffer in vit.named_buffers()}
    plain = seeded(vit, images)
    counted = {name: buffer.clone() for name, buffer in vit.named_buffers()}
    vit.load_state_dict(buffers, strict=False)
    with dropkey.capture(vit) as attended, dropkey.capture(vit, stage="dropped") as dropped:
        assert torch.equal(seeded(vit, images), plain)
    assert all(torch.equal(buffer, counted[name]) for name, buffer in vit.named_buffers())
    vit.load_state_dict(buffers, strict=False)
    inside = []
    for block in vit.blocks:
        block.attn.reattention.register_forward_hook(lambda mixer, args, change: inside.append((args[0], change)))
    with attention_maps(vit) as mixed:  # the path that computes maps
        seeded(vit, images)
    for name, (attn, change), want in zip(NAMES, inside, mixed, strict=True):
        torch.testing.assert_close(dropped[name], attn, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(attended[name], attn + change, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(attended[name], want, rtol=1e-4, atol=1e-5)
    assert (attended[NAMES[0]] < 0).any()


def test_chosen_sites_heads_and_queries(vit, images):
    with dropkey.capture(vit) as every:
        vit(images)
    options = {"where": lambda site: site.block_index > 0, "heads": [2, 0], "queries": [0, 5, 64]}
    with dropkey.capture(vit, **options) as some:
        vit(images)
    assert list(every) == NAMES
    assert list(some) == NAMES[1:]
    for name in some:
        assert some[name].shape == (2, 2, 3, 65)
        torch.testing.assert_close(some[name], every[name][:, [2, 0]][:, :, [0, 5, 64]], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("bias", [None, "float", "bool"])
def test_chosen_queries_of_causal_attention(bias):
    class Causal(nn.Module):
        def forward(self, x):
            mask = {None: None, "float": x.new_zeros(5, 5), "bool": torch.ones(5, 5, dtype=torch.bool)}[bias]
            return scaled_dot_product_attention(
                x, x, x, mask.tril() if bias == "bool" else mask, is_causal=bias is None
            )

    dropkey.register(Causal)
    model = nn.Sequential(Causal())
    x = torch.randn(2, 3, 5, 8)
    with dropkey.capture(model) as every, dropkey.capture(model, queries=[1, 4]) as some:
        model(x)
    torch.testing.assert_close(some["0"], every["0"][:, :, [1, 4]])
    if bias != "float":
        assert (every["0"].triu(1) == 0).all()


def test_grouped_heads():
    class Grouped(nn.Module):
        def forward(self, q, k):
            return scaled_dot_product_attention(q, k, k, enable_gqa=True)

    dropkey.register(Grouped)
    model = nn.Sequential(Grouped())
    q, k = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 6, 8)
    with dropkey.capture(model[0], heads=[3]) as maps:
        model[0](q, k)
    torch.testing.assert_close(maps[""][:, 0], (q[:, 3] @ k[:, 1].mT / 8**0.5).softmax(-1))


def test_a_finite_mask_of_windows_stays_finite():
    """Where other keys are milder still, a window's mask of -100 is no mask: neither is it while somebody looks."""
    torch.manual_seed(0)
    model = SwinTransformer([4, 4], 16, [2], [1], [4, 4], num_classes=3).eval()
    model.features[1][1].attn.relative_position_bias_table.data.normal_(std=200)
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        plain = model(images)
        with dropkey.capture(model) as maps:
            out = model(images)
    assert torch.equal(out, plain)
    assert maps["features.1.1.attn"].shape == (4, 1, 16, 16)


def test_several_calls_are_a_list(vit, images):
    with dropkey.capture(vit) as maps:
        vit(images)
        vit(images + 1)
    assert [len(seen) for seen in maps.values()] == [2, 2, 2]
    assert not torch.equal(*maps[NAMES[0]])


def test_measures_in_place_of_maps(vit, images):
    named = {"peak": peak, "rows": lambda attn: attn.sum(-1)}
    with (
        dropkey.capture(vit) as maps,
        dropkey.capture(vit, reduce=entropy) as one,
        dropkey.capture(vit, reduce=named) as several,
    ):
        vit(images)
    for name in NAMES:
        torch.testing.assert_close(one[name], entropy(maps[name]))
        torch.testing.assert_close(several[name]["peak"], peak(maps[name]))
        assert several[name]["rows"].shape == (2, 3, 65)
    assert "peak (2, 3), rows (2, 3, 65)" in str(several)
    message = r"one row for each of the 2 images, got shape \(\)"
    with pytest.raises(ArgumentError, match=message), dropkey.capture(vit, reduce=torch.mean):
        vit(images)


def test_reduced_maps_are_computed_a_few_images_at_a_time(vit, images, monkeypatch):
    monkeypatch.setattr("dropkey.diagnostics.heard._CHUNK", 3 * 65 * 65 * 4)
    sizes = []

    def noted(attn):
        sizes.append(len(attn))
        return entropy(attn)

    with dropkey.capture(vit) as maps, dropkey.capture(vit, reduce=noted) as reduced:
        vit(images)
    assert set(sizes) == {1}
    torch.testing.assert_close(reduced[NAMES[0]], entropy(maps[NAMES[0]]))


def test_maps_that_do_not_fit_are_refused_before_they_are_made(vit, images):
    one = 2 * 3 * 65 * 65 * 4
    with dropkey.capture(vit, max_bytes=3 * one):
        vit(images)
    message = r"the maps of blocks.2.attn \(2, 3, 65, 65\) take .* MiB are left beside the .*: pass reduce=, a smaller"
    with pytest.raises(SiteError, match=message), dropkey.capture(vit, max_bytes=3 * one - 1):
        vit(images)
    assert all(site_of(block.attn) is None for block in vit.blocks)
    with dropkey.capture(vit, max_bytes=0, reduce=entropy):
        vit(images)


def test_the_memory_that_is_free_counts(vit, images, monkeypatch):
    monkeypatch.setattr("dropkey.diagnostics.capture.free_bytes", lambda device: 10)
    with pytest.raises(SiteError, match="pass reduce="), dropkey.capture(vit):
        vit(images)


def test_memory_is_known_here():
    from dropkey.diagnostics.memory import free_bytes

    assert 2**20 < free_bytes(torch.device("cpu")) < 2**50


def test_a_recomputation_is_not_heard(vit, images):
    for block in vit.blocks:
        block.forward = lambda x, forward=block.forward, **_: checkpoint(forward, x, use_reentrant=False)
    dropkey.apply(vit, dropkey.DropKey(0.3, schedule=[0.3, 0.0, 0.3]))
    seeded(vit.train(), images).sum().backward()
    want = [parameter.grad.clone() for parameter in vit.parameters()]
    vit.zero_grad()
    with dropkey.capture(vit) as maps:
        seeded(vit, images).sum().backward()
    assert [type(seen) for seen in maps.values()] == [torch.Tensor] * 3
    assert all(torch.equal(p.grad, grad) for p, grad in zip(vit.parameters(), want, strict=True))


def test_a_compiled_model_runs_eagerly_meanwhile(images):
    model = tiny_vit(depth=1).eval()
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        plain = compiled(images)
        with dropkey.capture(compiled) as maps:
            out = compiled(images)
        torch.testing.assert_close(out, plain)
        assert list(maps) == ["blocks.0.attn"]
        assert torch.equal(compiled(images), plain)


def test_dropout_that_nobody_can_see_is_named(images):
    model = tiny_vit(attn_drop_rate=0.5)
    with dropkey.capture(model) as maps:
        model.eval()(images)
    assert maps.notes == []
    plain = seeded(model.train(), images)
    with dropkey.capture(model) as maps:
        assert torch.equal(seeded(model, images), plain)
    assert len(maps.notes) == 3
    assert "blocks.0.attn: its maps are those before the dropout of weights, whose mask cannot be seen" in str(maps)
    torch.testing.assert_close(maps["blocks.0.attn"].sum(-1), torch.ones(2, 3, 65))
    other = tiny_vit()
    dropkey.apply(other, dropkey.AttentionDropout(0.3, schedule="constant"))
    with dropkey.capture(other) as maps:
        other(images)
    assert len(maps.notes) == 3


class Stranger(nn.Module):
    def __init__(self):
        super().__init__()
        self.num_heads = 2
        self.proj = nn.Linear(8, 8)

    def forward(self, x):
        return self.proj(x)


def test_a_class_that_nobody_knows_is_named():
    model = nn.Sequential(nn.MultiheadAttention(8, 2), Stranger())
    x = torch.randn(3, 2, 8)
    message = r"no adapter knows its class: 1 \(Stranger\); see dropkey.register"
    with pytest.warns(UserWarning, match=message), dropkey.capture(model) as maps:
        model[0](x, x, x)
    assert "1 (Stranger) is not captured: no adapter knows its class" in str(maps)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with dropkey.capture(model, where=lambda site: True) as maps:
            model[0](x, x, x)
    assert maps.notes == ["1 (Stranger) is not captured: no adapter knows its class"]


def test_what_cannot_be_captured(vit, images):
    with pytest.raises(SiteError, match="found no supported attention module"), dropkey.capture(nn.Linear(2, 2)):
        pass
    with (
        pytest.raises(SiteError, match=r"it has \(the model itself\) \(Stranger\): register"),
        dropkey.capture(Stranger()),
    ):
        pass
    with pytest.raises(SiteError, match=r"where chooses none of the \d attention modules"):
        dropkey.capture(vit, where=lambda site: False).__enter__()
    with pytest.raises(ArgumentError, match="unknown stage 'drop'; did you mean 'dropped'"):
        dropkey.capture(vit, stage="drop").__enter__()
    with pytest.raises(ArgumentError, match=r"blocks.0.attn has heads 0 to 2, got 3"), dropkey.capture(vit, heads=[3]):
        vit(images)
    with pytest.raises(ArgumentError, match="has queries 0 to 64, got -1"), dropkey.capture(vit, queries=[-1]):
        vit(images)
    with dropkey.capture(vit) as maps:
        with pytest.raises(SiteError, match=r"blocks.1.attn has not attended: run the model inside"):
            _ = maps["blocks.1.attn"]
        with pytest.raises(KeyError, match=r"did you mean 'blocks.1.attn'"):
            _ = maps["blocks.1.atn"]
    assert len(maps) == 0


def test_a_copy_made_meanwhile_is_heard_by_nobody(images):
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)).eval()
    x = torch.randn(2, 3, 8)
    with torch.no_grad(), dropkey.capture(model) as maps:
        other = copy.deepcopy(model)
        other[0].linear1.weight.zero_()
        out = other(x)
        assert len(maps) == 0
    with torch.no_grad():
        assert torch.equal(other(x), out)
        assert not torch.equal(model(x), out)


def test_packed_sequences_are_refused_by_name():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 8, batch_first=True), 1).eval()
    padding = torch.tensor([[False, False, True], [False, False, False]])
    message = "layers.0.self_attn .* cannot be heard: .* enable_nested_tensor=False"
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nested tensors are a prototype
        with pytest.raises(SiteError, match=message), dropkey.capture(encoder):
            encoder(torch.randn(2, 3, 8), src_key_padding_mask=padding)


def test_a_module_that_does_not_attend_is_named():
    class Silent(nn.Module):
        def forward(self, x):
            return x

    dropkey.register(Silent)
    model, message = (
        nn.Sequential(Silent()),
        r"0 \(Silent\) ran without calling scaled_dot_product_attention, so its att",
    )
    with pytest.raises(SiteError, match=message), dropkey.capture(model):
        model(torch.randn(2, 3))
