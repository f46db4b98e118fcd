"""Every family of the catalogue: sites found, each proved to drop, untouched where it must be, and undone."""

import contextlib
from pathlib import Path

import pytest
import torch

import dropkey
from dropkey.adapters.eager import computes_softmax
from dropkey.adapters.site import Site, site_of
from dropkey.catalogue.__main__ import page, row
from dropkey.catalogue.timm import TIMM_FAMILIES, TIMM_WITHOUT_KEYS
from dropkey.catalogue.torch import TORCH_FAMILIES
from dropkey.catalogue.transformers import TRANSFORMERS_FAMILIES, TRANSFORMERS_WITHOUT_KEYS

# Kinds of sites in the small model, in the order of its blocks.
TIMM_KINDS = {
    "ViT": ["self"] * 2,
    "ViT, parallel blocks": ["self"] * 4,
    "ViT, differential": ["self"] * 2,
    "ViT, attention beside MLP": ["self"] * 2,
    "ViT, relative positions": ["self"] * 2,
    "ViT, rotary": ["self"] * 2,
    "ViT, hybrid": ["self"] * 2,
    "DeiT, distilled": ["self"] * 2,
    "DeiT III": ["self"] * 2,
    "DINOv2, registers": ["self"] * 2,
    "DINOv3": ["self"] * 2,
    "SigLIP, attention pool": ["self", "self", "pool"],
    "EVA-02": ["self"] * 2,
    "BEiT": ["self"] * 2,
    "BEiT v2": ["self"] * 2,
    "NaFlexViT": ["self"] * 2,
    "SAM": ["self"] * 2,
    "Swin": ["window"] * 4,
    "Swin v2": ["window"] * 4,
    "Swin v2, cr": ["window"] * 4,
    "VOLO": ["outlook", "self", "self", "self", "class", "class"],
    "CaiT": ["self", "self", "class", "class"],
    "XCiT": ["class"] * 2,
    "PVT v2": ["self"] * 4,
    "Twins-PCPVT": ["self"] * 4,
    "Twins-SVT": ["window"] * 4 + ["self"],
    "MViT v2": ["self"] * 2,
    "Hiera": ["window"] * 4,
    "SAM 2, Hiera": ["window"] * 6,
    "LeViT": ["self"] * 5,
    "MaxViT": ["window"] * 4,
    "CoAtNet": ["self"],
    "ConViT": ["self"] * 2,
    "CrossViT": ["self", "self", "self", "cross", "cross"],
    "TNT": ["self"] * 4,
    "NesT": ["window"] * 2,
    "GC ViT": ["window"] * 4,
    "Visformer": ["self"] * 2,
    "CAFormer": ["self"] * 2,
    "TinyViT": ["window"] * 3,
    "FastViT": ["self"],
    "EfficientFormer": ["self"],
    "EfficientFormer v2": ["self"] * 3,
    "EfficientViT (MSRA)": ["window"] * 2,
    "Next-ViT": ["self"] * 3,
    "DaViT": ["window"] * 2,
    "PiT": ["self"] * 3,
    "MobileViT": ["self"] * 9,
    "ViTamin": ["self"] * 2,
    "SHViT": ["self"] * 2,
    "iFormer": ["self"] * 2,
    "LowFormer": ["self"] * 2,
    "CPUBone": ["self"] * 2,
    "MobileNet v4, hybrid": ["self"] * 8,
    "BoTNet": ["self"] * 3,
    "HaloNet": ["window"] * 3,
    "ResNet of CLIP": ["pool"],
    "CSATv2": ["self"] * 4,
    "Gemma 4 ViT": ["self"] * 2,
}
TORCH_KINDS = {
    "nn.MultiheadAttention": ["self"],
    "nn.TransformerEncoder": ["self"] * 2,
    "nn.TransformerDecoder": ["decoder self", "decoder cross"] * 2,
    "nn.Transformer": ["encoder self"] * 2 + ["decoder self", "decoder cross"] * 2,
    "ViT": ["self"] * 2,
    "Swin": ["window"] * 4,
    "Swin v2": ["window"] * 4,
    "MaxViT": ["window"] * 4,
}
ENCODER_DECODER = ["encoder self", "decoder self", "decoder cross", "decoder self", "decoder cross"]
TRANSFORMERS_KINDS = {
    "ViT": ["self"] * 2,
    "DeiT": ["self"] * 2,
    "DINOv2": ["self"] * 2,
    "DINOv2, registers": ["self"] * 2,
    "DINOv3": ["self"] * 2,
    "CLIP, vision": ["self"] * 2,
    "SigLIP, vision": ["self", "self", "pool"],
    "SigLIP 2, vision": ["self", "self", "pool"],
    "BEiT": ["self"] * 2,
    "Data2Vec, vision": ["self"] * 2,
    "ViT-MSN": ["self"] * 2,
    "ViT-MAE": ["self", "self", "decoder self"],
    "I-JEPA": ["self"] * 2,
    "OWL-ViT, vision": ["self"] * 2,
    "AIMv2, vision": ["self", "self", "pool"],
    "DPT": ["self"] * 4,
    "YOLOS": ["self"] * 2,
    "Swin": ["window"] * 4,
    "Swin v2": ["window"] * 4,
    "Donut's Swin": ["window"] * 4,
    "VideoMAE": ["self"] * 2,
    "ViViT": ["self"] * 2,
    "TimeSformer": ["self"] * 4,
    "SAM, vision": ["self"] * 2,
    "PVT": ["self"] * 2,
    "PVT v2": ["self"] * 2,
    "SegFormer": ["self"] * 4,
    "GLPN": ["self"] * 4,
    "LeViT": ["self"] * 5,
    "Hiera": ["window"] * 4,
    "MobileViT": ["self"] * 9,
    "CvT": ["self"] * 6,
    "DETR": ENCODER_DECODER,
    "Conditional DETR": ENCODER_DECODER,
    "DAB-DETR": ENCODER_DECODER,
    "Table Transformer": ENCODER_DECODER,
    "Deformable DETR": ["decoder self"] * 2,
    "RT-DETR": ["encoder self", "decoder self", "decoder self"],
    "RT-DETR v2": ["encoder self", "decoder self", "decoder self"],
    "D-FINE": ["encoder self", "decoder self", "decoder self"],
}
LARGE = {"Next-ViT", "MobileNet v4, hybrid", "BoTNet", "HaloNet", "ResNet of CLIP", "CSATv2", "Gemma 4 ViT"}


def cases(families, kinds):
    assert [family.name for family in families] == list(kinds)
    return [
        pytest.param(family, kinds[family.name], id=f"{family.library} {family.name}", marks=slow(family))
        for family in families
    ]


def slow(family):
    return [pytest.mark.slow] if family.name in LARGE else []


def run(model, family):
    """Return all outputs, from the same random state each time."""
    torch.manual_seed(7)
    positional, keyword = family.arguments()
    output = model(*positional, **keyword)
    leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]
    return [leaf for leaf in leaves if leaf.is_floating_point()]


def shaken(family):
    """The small model with noise on all its weights: some start with branches at or near zero, where nothing shows."""
    torch.manual_seed(0)
    model = family.small()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def assert_same(one, other):
    assert len(one) == len(other) > 0
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@contextlib.contextmanager
def ways_in():
    """Notes which of its two doors each call of a site takes."""
    ways = set()
    with pytest.MonkeyPatch.context() as patch:
        for name, way in (("attend", "SDPA"), ("attend_logits", "softmax")):
            original = getattr(Site, name)

            def noted(self, *args, original=original, way=way, **kwargs):
                ways.add(way)
                return original(self, *args, **kwargs)

            patch.setattr(Site, name, noted)
        yield ways


def way_in_table(module):
    return "softmax" if computes_softmax(module, site_of(module).entry) else "SDPA"


def check(family, kinds):
    model = shaken(family)
    classes = [type(module) for module in model.modules()]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}

    def restore():
        for name, buffer in model.named_buffers():
            if buffer.shape == buffers[name].shape:  # ConViT makes its position indices in its first forward
                buffer.detach().copy_(buffers[name])

    model.train()
    untouched_training = run(model, family)
    restore()
    model.eval()
    untouched = run(model, family)
    own_state = {name: sorted(vars(module)) for name, module in model.named_modules()}
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    handle = dropkey.apply(model, dropkey.DropKey(0.4, schedule="constant"))
    assert [site.kind for site in handle.sites] == kinds
    assert handle.unknown == []
    assert list(model.state_dict()) == list(state)
    assert_same(run(model, family), untouched)
    positional, keyword = family.arguments()
    with ways_in() as ways:
        verification = handle.verify(*positional, **keyword)
    modules = [model.get_submodule(site.name) for site in handle.sites]
    if not any(isinstance(module, torch.nn.MultiheadAttention) for module in modules):  # as it is asked for weights
        assert ways == set(map(way_in_table, modules))
    assert all(check.num_calls > 0 and check.dropped_share > 0 for check in verification.checks)
    assert all(check.max_error < 1e-3 for check in verification.checks)  # compared: not NaN
    model.train()
    dropped = run(model, family)
    assert not all(torch.equal(a, b) for a, b in zip(dropped, untouched_training, strict=True))
    assert all(leaf.isfinite().all() for leaf in dropped)
    restore()
    handle.drop_ratios = [0.0] * len(kinds)
    assert_same(run(model, family), untouched_training)
    restore()
    handle.remove()
    assert [type(module) for module in model.modules()] == classes
    assert {name: sorted(vars(module)) for name, module in model.named_modules()} == own_state
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert_same(run(model, family), untouched_training)
    restore()
    model.eval()
    assert_same(run(model, family), untouched)


@pytest.mark.parametrize(("family", "kinds"), cases(TIMM_FAMILIES, TIMM_KINDS))
def test_timm(family, kinds):
    check(family, kinds)


@pytest.mark.parametrize(("family", "kinds"), cases(TORCH_FAMILIES, TORCH_KINDS))
def test_torch(family, kinds):
    check(family, kinds)


@pytest.mark.parametrize(("family", "kinds"), cases(TRANSFORMERS_FAMILIES, TRANSFORMERS_KINDS))
def test_transformers(family, kinds):
    check(family, kinds)


# One family for each way in and layout.
CHOSEN = [
    "Swin",
    "Swin v2",
    "NesT",
    "Twins-SVT",
    "SAM",
    "VOLO",
    "SHViT",
    "EfficientViT (MSRA)",
    "MaxViT",
    "DETR",
    "BEiT",
]
OTHERS = {
    "column": dropkey.DropKey(0.4, schedule="constant", pattern="column"),
    "token": dropkey.DropKey(0.4, schedule="constant", pattern="token"),
    "dropout": dropkey.AttentionDropout(0.4, schedule="constant"),
    "renormalized": dropkey.AttentionDropout(0.4, schedule="constant", renormalize=True),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize(
    "family",
    [family for family in TIMM_FAMILIES + TORCH_FAMILIES + TRANSFORMERS_FAMILIES if family.name in CHOSEN],
    ids=lambda family: f"{family.library} {family.name}",
)
def test_other_patterns_and_the_baseline(family, other):
    model = shaken(family)
    positional, keyword = family.arguments()
    checks = dropkey.apply(model, OTHERS[other]).verify(*positional, **keyword).checks
    assert all(check.num_calls > 0 for check in checks)


GRIDS = {"Swin": (4, 4), "Swin v2": (4, 4), "MaxViT": (4, 4), "CaiT": (2, 2), "ConViT": (2, 2), "DaViT": (4, 4)}


@pytest.mark.parametrize("name", GRIDS)
def test_block_pattern_knows_the_grid(name):
    """A window is its own grid; the class token comes in later than the first blocks of CaiT and ConViT."""
    family = next(family for family in TIMM_FAMILIES if family.name == name)
    regularizer = dropkey.DropKey(0.4, schedule="constant", pattern="block")
    model = shaken(family)
    handle = dropkey.apply(model, regularizer, where=lambda site: site.kind != "class")
    handle.verify(*family.arguments()[0])
    assert site_of(model.get_submodule(handle.sites[0].name)).grid_size == GRIDS[name]


@pytest.mark.parametrize("family", TIMM_WITHOUT_KEYS + TRANSFORMERS_WITHOUT_KEYS, ids=lambda family: family.name)
def test_a_model_without_keys_is_refused_with_the_reason(family):
    with pytest.raises(dropkey.SiteError, match=r"linear attention: no softmax over keys|channel attention: no keys"):
        dropkey.apply(family.small(), dropkey.DropKey(0.4))


PAGE = Path(__file__).parents[2] / "docs" / "reference" / "models.md"


@pytest.mark.parametrize("name", ["ViT", "VOLO", "XCiT", "DETR", "D-FINE", "nn.Transformer", "CoaT"])
def test_the_docs_table_is_up_to_date(name):
    families = TIMM_FAMILIES + TORCH_FAMILIES + TRANSFORMERS_FAMILIES + TIMM_WITHOUT_KEYS
    family = next(family for family in families if family.name == name)
    assert f"| {' | '.join(row(family))} |" in PAGE.read_text(encoding="utf-8").splitlines()


@pytest.mark.slow
def test_the_docs_page_is_what_the_command_writes():
    def without_versions(text):
        return [line for line in text.splitlines() if not line.startswith("Counted with")]

    assert without_versions(page()) == without_versions(PAGE.read_text(encoding="utf-8"))
