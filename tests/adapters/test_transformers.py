"""transformers: padding, both attention implementations, kinds of sites, copies, and what is refused."""

import copy
import pickle

import numpy as np
import pytest
import torch
import transformers
from oracles.attention import attention
from oracles.masks import keep_mask

import dropkey
from dropkey.adapters.listeners import recording
from dropkey.adapters.site import site_of
from dropkey.catalogue.transformers import TRANSFORMERS_FAMILIES

FAMILIES = {family.name: family for family in TRANSFORMERS_FAMILIES}
DETRS = ["DETR", "Conditional DETR", "DAB-DETR", "Table Transformer"]
USES_THE_TABLE = [
    "ViT",
    "BEiT",
    "Swin",
    "CLIP, vision",
    "SigLIP 2, vision",
    "YOLOS",
    "DETR",
    "Conditional DETR",
    "D-FINE",
]


def build(name, implementation=None):
    torch.manual_seed(0)
    model = FAMILIES[name].small()
    if implementation not in (None, model.config._attn_implementation):
        model.set_attn_implementation(implementation)
    return model.train()


def with_dropkey(model, ratio=0.4, **options):
    return dropkey.apply(model, dropkey.DropKey(ratio, schedule="constant"), **options)


def tensors(output):
    leaves = torch.utils._pytree.tree_leaves(output)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]


def run(model, family, seed=1, **changes):
    torch.manual_seed(seed)
    return tensors(model(**{**family.inputs(), **changes}))


def assert_close(one, other):
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def visible_patches(pixel_mask, size):
    """Which of size x size feature places a DETR may look at: the mask sampled at the nearest pixel."""
    step = pixel_mask.shape[-1] // size
    return pixel_mask[:, ::step, ::step].bool().flatten(1).numpy()


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", DETRS)
def test_padding_stays_forbidden(name, implementation):
    """Encoder self and decoder cross attention see no padded place, whatever is dropped; the queries see each other."""
    family, ratio = FAMILIES[name], 0.9  # most rows lose all their keys: where a mild padding mask would give in
    model = build(name, implementation if name in USES_THE_TABLE else None)
    with_dropkey(model, ratio)
    modules = [module for module in model.modules() if site_of(module)]
    with recording(modules) as records:
        run(model, family)
    assert len(modules) == 5
    for site, (record,) in zip(map(site_of, modules), records, strict=True):
        call, shape = record.call, record.call.mask_shape
        places = shape[3]
        allowed = np.ones(shape, dtype=bool)
        if site.entry.kind != "decoder self":
            visible = visible_patches(family.inputs()["pixel_mask"], int(places**0.5))
            assert visible.sum() == 0.75 * visible.size
            allowed &= visible[:, None, None, :]
        keep = keep_mask(shape, ratio, "element", int(call.draw.seed))
        bias = None
        if call.attn_bias is not None and call.attn_bias.dtype != torch.bool:
            bias = call.attn_bias.detach().double().expand(shape).numpy()
            bias = np.where(bias <= np.finfo(np.float32).min, -np.inf, bias)
        arrays = [tensor.detach().double().numpy() for tensor in (call.query, call.key, call.value)]
        expected, _ = attention(*arrays, keep, allowed=allowed, bias=bias, scale=call.scale)
        np.testing.assert_allclose(record.out.detach().numpy(), expected, atol=1e-5, err_msg=site.name)


def test_padded_patches_do_not_matter():
    family = FAMILIES["SigLIP 2, vision"]
    model = build(family.name)
    with_dropkey(model, 0.9)
    inputs = family.inputs()
    padded = ~inputs["pixel_attention_mask"].bool()
    assert padded.any()
    inputs["pixel_values"][padded] = 7.0
    torch.manual_seed(1)
    changed = model(**inputs).pooler_output
    torch.manual_seed(1)
    torch.testing.assert_close(model(**family.inputs()).pooler_output, changed, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", USES_THE_TABLE)
def test_both_implementations_drop_the_same_keys(name):
    outs = []
    for implementation in ("sdpa", "eager"):
        model = build(name, implementation)
        handle = with_dropkey(model)
        handle.verify(**FAMILIES[name].inputs())
        ways = {line.split()[-1] for line in str(handle).splitlines()[2:] if "Left alone" not in line}
        assert ("softmax" in ways) == (implementation == "eager")
        outs.append(run(model.train(), FAMILIES[name]))
    assert_close(*outs)


def test_the_implementation_may_change_later():
    model = build("ViT")
    with_dropkey(model)
    before = run(model, FAMILIES["ViT"])
    model.set_attn_implementation("eager")
    assert_close(run(model, FAMILIES["ViT"]), before)


def test_an_implementation_that_runs_around_torch_is_refused():
    model = build("ViT", "flex_attention")
    with pytest.raises(
        dropkey.SiteError, match=r"ViTAttention\) cannot be reached: .*'flex_attention' .*set_attn_impl"
    ):
        with_dropkey(model)
    assert all(site_of(module) is None for module in model.modules())
    model.set_attn_implementation("sdpa")
    with_dropkey(model)


@pytest.mark.parametrize("name", ["DETR", "ViT"])
def test_the_configuration_is_left_alone(name):
    model = build(name)
    before = model.config.to_dict()
    handle = with_dropkey(model)
    assert (model.config.to_dict(), model.config._attn_implementation) == (before, "sdpa")
    handle.remove()
    assert (model.config.to_dict(), model.config._attn_implementation) == (before, "sdpa")


def test_where_chooses_cross_attention():
    model = build("DETR")
    handle = with_dropkey(model, where=lambda site: site.kind == "decoder cross")
    assert [site.name for site in handle.sites] == [f"model.decoder.layers.{i}.encoder_attn" for i in range(2)]
    handle.verify(**FAMILIES["DETR"].inputs())


def test_deformable_attention_is_named():
    handle = with_dropkey(build("D-FINE"))
    assert handle.left_alone == [
        f"model.decoder.layers.{i}.encoder_attn (DFineMultiscaleDeformableAttention): "
        "deformable attention: it samples places, there are no keys"
        for i in range(2)
    ]
    names = ", ".join(f"model.decoder.layers.{i}.encoder_attn (DFineMultiscaleDeformableAttention)" for i in range(2))
    assert str(handle).endswith(f"\nLeft alone (deformable attention: it samples places, there are no keys): {names}")


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("ViT", "attention_probs_dropout_prob"),
        ("CLIP, vision", "attention_dropout"),
        ("YOLOS", "attention_probs_dropout_prob"),
    ],
)
def test_own_dropout_gives_way(name, rate, implementation):
    outs = []
    for value in (0.0, 0.5):
        model = build(name)
        family = FAMILIES[name]
        config = model.config
        setattr(config, rate, value)
        torch.manual_seed(0)
        model = type(model)(config).train()
        model.set_attn_implementation(implementation)
        handle = with_dropkey(model)
        assert ("0.5 set to 0" in str(handle)) == (value > 0)
        outs.append(run(model, family))
    assert_close(*outs)


@pytest.mark.parametrize("name", ["ViT", "DETR", "Swin v2"])
def test_copies(name):
    model, family = build(name), FAMILIES[name]
    with_dropkey(model)
    expected = run(model, family)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_close(run(other, family), expected)
        handle = dropkey.handle(other)
        handle.verify(**family.inputs())
        handle.remove()
    assert_close(run(model, family), expected)


def test_save_pretrained(tmp_path):
    model, family = build("ViT"), FAMILIES["ViT"]
    handle = with_dropkey(model)
    model.save_pretrained(tmp_path)
    handle.remove()
    restored = transformers.ViTForImageClassification.from_pretrained(tmp_path)
    assert_close(run(restored.eval(), family), run(model.eval(), family))


def test_gradient_checkpointing_draws_the_same_masks():
    model, family = build("ViT"), FAMILIES["ViT"]
    with_dropkey(model)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
        model.zero_grad()
        run(model, family)[0].sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
    assert_close(*gradients)


PREFIX_TOKENS = {
    "ViT": 1,
    "DeiT": 2,
    "DINOv2": 1,
    "DINOv2, registers": 5,
    "DINOv3": 5,
    "CLIP, vision": 1,
    "SigLIP, vision": 0,
    "BEiT": 1,
    "ViT-MSN": 1,
}


@pytest.mark.parametrize("name", PREFIX_TOKENS)
def test_grid_and_prefix_tokens_are_found(name):
    model = build(name)
    handle = dropkey.apply(
        model, dropkey.DropKey(0.4, schedule="constant", pattern="block"), where=lambda site: site.kind == "self"
    )
    handle.verify(**FAMILIES[name].inputs())
    site = next(site for site in map(site_of, model.modules()) if site)
    assert (site.grid_size, site.num_prefix_tokens) == ((4, 4), PREFIX_TOKENS[name])


def test_a_class_of_ones_own_that_uses_the_table():
    """As in code that comes with a checkpoint: known by what its forward does, not by its name."""

    class Ours(transformers.models.vit.modeling_vit.ViTAttention):
        pass

    model = build("ViT")
    for layer in model.vit.layers:
        layer.attention.__class__ = Ours
    assert len(with_dropkey(model).sites) == 2


@pytest.mark.slow
def test_compiles_as_one_graph():
    model, family = build("ViT"), FAMILIES["ViT"]
    with_dropkey(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert_close(run(compiled, family), run(model, family))
