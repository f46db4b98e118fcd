"""``dropkey.audit``: planted bugs are found, right models are left in peace, and nothing is changed."""

import random
from functools import partial

import numpy as np
import pytest
import timm
import torch
import torchvision
from audited_models import BUGS, RIGHT, built, tokens
from conftest import tiny_vit
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.models.swin_transformer import SwinTransformer

import dropkey
import dropkey.models
from dropkey.adapters.site import site_of
from dropkey.catalogue.timm import TIMM_FAMILIES, TIMM_WITHOUT_KEYS
from dropkey.catalogue.transformers import TRANSFORMERS_FAMILIES
from dropkey.diagnostics.audit.bound import bounds, is_plausible
from dropkey.patterns import PATTERNS


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found_and_nothing_else(name):
    model, said = BUGS[name]
    audit = dropkey.audit(built(model), tokens())
    assert not audit.ok
    assert len(audit.problems) == 1, audit
    assert said in audit.problems[0]
    assert "PROBLEM" in str(audit)
    assert said in str(audit)


@pytest.mark.parametrize("name", RIGHT)
def test_right_dropout_of_any_kind_is_measured(name):
    model, what, rate = RIGHT[name]
    audit = dropkey.audit(built(model), tokens())
    assert audit.ok, audit
    found = [finding for finding in audit.findings if finding.what == what]
    assert found, audit
    for finding in found:
        assert finding.declared == pytest.approx(rate)
        assert abs(finding.rate - rate) <= finding.bound < 0.06
        assert finding.evaluation_rate == 0


RATES = {"drop_rate": 0.1, "attn_drop_rate": 0.15, "drop_path_rate": 0.2, "proj_drop_rate": 0.12, "pos_drop_rate": 0.07}
# Not all take all of the rates.
TAKEN = [set(RATES), set(RATES) - {"pos_drop_rate"}, {"drop_rate", "attn_drop_rate", "drop_path_rate"}]
TAKEN += [{"drop_rate", "drop_path_rate"}, {"drop_rate"}, set()]
QUICK = [
    *(
        "ViT",
        "ViT, relative positions",
        "ViT, rotary",
        "DeiT, distilled",
        "DINOv2, registers",
        "EVA-02",
        "BEiT",
        "Swin",
    ),
    *("Swin v2", "CaiT", "XCiT", "PVT v2", "Twins-SVT", "MViT v2", "Hiera", "LeViT", "MaxViT", "ConViT", "CrossViT"),
    *("TNT", "PiT", "DaViT", "CoAtNet", "NesT", "LowFormer", "MobileNet v4, hybrid", "ViT, parallel blocks"),
]
# Rates that the library itself never applies: seen by the audit, and true.
NEVER_APPLIED = {"CoaT": "factoratt_crpe.attn_drop: never runs", "SAM, vision": "attn: states dropout = 0.1"}


def with_rates(family):
    """A timm family's small model with all rates that it takes above 0."""
    for taken in TAKEN:
        try:
            return family.small(**{name: rate for name, rate in RATES.items() if name in taken})
        except TypeError:
            continue
    raise AssertionError(family.name)


def assert_no_false_alarm(name, audit):
    told = NEVER_APPLIED.get(name)
    assert [problem for problem in audit.problems if told is None or told not in problem] == []
    assert bool(audit.problems) == (told is not None)
    for finding in audit.findings:
        if finding.bound is not None and finding.declared is not None and not finding.problems:
            assert abs(finding.rate - finding.declared) <= finding.bound


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(f, id=f.name, marks=[] if f.name in [*QUICK, *NEVER_APPLIED] else pytest.mark.slow)
        for f in [*TIMM_FAMILIES, *TIMM_WITHOUT_KEYS]
    ],
)
def test_no_false_alarm_in_timm(family):
    torch.manual_seed(0)
    model = with_rates(family)
    positional, keyword = family.arguments()
    assert_no_false_alarm(family.name, dropkey.audit(model, *positional, **keyword))


QUICK_TRANSFORMERS = [
    "ViT",
    "DeiT",
    "DINOv2",
    "Swin",
    "BEiT",
    "ViT-MAE",
    "DETR",
    "SegFormer",
    "SAM, vision",
    "CLIP, vision",
]


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(f, id=f.name, marks=[] if f.name in QUICK_TRANSFORMERS else pytest.mark.slow)
        for f in TRANSFORMERS_FAMILIES
    ],
)
def test_no_false_alarm_in_transformers(family):
    torch.manual_seed(0)
    model = family.small()
    model = type(model)(_raised(model.config))
    positional, keyword = family.arguments()
    assert_no_false_alarm(family.name, dropkey.audit(model, *positional, **keyword))


def _raised(config):
    """A configuration with every dropout rate of 0.1 and a bit."""
    for name, value in list(vars(config).items()):
        if hasattr(value, "to_dict"):
            _raised(value)
        elif "drop" in name and name != "layerdrop" and type(value) in (int, float):
            try:
                setattr(config, name, 0.1 + 0.01 * (len(name) % 7))
            except Exception:  # a whole number is wanted: it stays
                continue
    return config


def _swin():
    small = {"patch_size": [4, 4], "embed_dim": 16, "depths": [2, 2], "num_heads": [1, 2], "window_size": [4, 4]}
    return SwinTransformer(**small, dropout=0.1, attention_dropout=0.2, stochastic_depth_prob=0.3)


OTHERS = {
    "torchvision ViT": partial(torchvision.models.VisionTransformer, 32, 8, 2, 2, 16, 32, 0.1, 0.2),
    "torchvision Swin": _swin,
    "torchvision MaxViT": partial(torchvision.models.MaxVit, (32, 32), 16, 2, [16, 32], [1, 1], 8, 0.2),
    "torchvision ConvNeXt": partial(torchvision.models.convnext_tiny, stochastic_depth_prob=0.3),
    "torchvision EfficientNet": torchvision.models.efficientnet_b0,
    "t2t_vit_7": partial(timm.create_model, "t2t_vit_7", img_size=32, depth=2, drop_rate=0.1, attn_drop_rate=0.2),
    "ceit_tiny": partial(timm.create_model, "ceit_tiny", img_size=32, depth=2, drop_path_rate=0.2),
    "deepvit_s": partial(timm.create_model, "deepvit_s", img_size=32, drop_rate=0.1, attn_drop_rate=0.2),
}


@pytest.mark.parametrize("name", OTHERS)
def test_no_false_alarm_in_torchvision_and_our_backbones(name, images):
    torch.manual_seed(0)
    audit = dropkey.audit(OTHERS[name](), images)
    assert_no_false_alarm(name, audit)
    assert audit.findings


def test_more_than_thirty_library_models_are_left_in_peace_by_default():
    assert len(QUICK) + len(QUICK_TRANSFORMERS) + len(OTHERS) - len(NEVER_APPLIED) > 30


@pytest.mark.parametrize("pattern", PATTERNS)
def test_dropkey_is_measured(pattern, vit, images):
    dropkey.apply(vit, dropkey.DropKey(0.3, [0.3, 0.0], pattern), where=lambda site: site.block_index != 1)
    audit = dropkey.audit(vit, images)
    assert audit.ok, audit
    assert [(f.module, f.what, f.declared) for f in audit.findings] == [("blocks.0.attn", "DropKey", 0.3)]
    assert 0.1 < audit.findings[0].rate < 0.5


@pytest.mark.parametrize("renormalize", [False, True])
def test_dropout_of_weights_is_measured(renormalize, vit, images):
    dropkey.apply(vit, dropkey.AttentionDropout(0.2, schedule="constant", renormalize=renormalize))
    audit = dropkey.audit(vit, images)
    assert audit.ok, audit
    assert [f.what for f in audit.findings] == ["AttentionDropout"] * 3


def test_a_disabled_regularizer_is_a_problem(vit, images):
    dropkey.apply(vit, dropkey.DropKey(0.3, schedule="constant")).disable()
    audit = dropkey.audit(vit, images)
    assert audit.problems == [f"blocks.{block}.attn: drops nothing: its handle is disabled" for block in range(3)]


def test_a_regularizer_that_acts_in_evaluation_is_a_problem(vit, images):
    handle = dropkey.apply(vit, dropkey.DropKey(0.3, schedule="constant"), where=lambda site: site.block_index == 1)
    site_of(vit.blocks[1].attn).slots[0].sampling = True
    audit = dropkey.audit(vit, images)
    assert audit.problems == ["blocks.1.attn: acts in evaluation"]
    handle.remove()


class Everything(nn.Module):
    """Buffers, every random generator, a part in another mode than the model, a gradient."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(8), nn.Dropout(0.3)
        self.frozen = nn.BatchNorm1d(8).eval()
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        random.random()
        np.random.rand()
        return self.fc(self.drop(self.frozen(self.norm(x))))


def test_nothing_is_changed():
    torch.manual_seed(3)
    model = Everything()
    x = torch.randn(16, 8)
    model(x).sum().backward()
    random_states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = {name: value.grad.clone() for name, value in model.named_parameters()}
    modes = {name: part.training for name, part in model.named_modules()}
    attributes = {name: sorted(vars(part)) for name, part in model.named_modules()}
    assert not dropkey.audit(model, x).problems
    assert torch.equal(torch.get_rng_state(), random_states[0])
    assert random.getstate() == random_states[1]
    assert (np.random.get_state()[1] == random_states[2]).all()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value.grad, gradients[name]) for name, value in model.named_parameters())
    assert {name: part.training for name, part in model.named_modules()} == modes
    assert {name: sorted(vars(part)) for name, part in model.named_modules()} == attributes
    assert not torch.nn.modules.module._global_forward_hooks
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_an_error_of_the_model_leaves_it_as_it_was(vit):
    vit.eval()
    with pytest.raises(AssertionError, match="Input height"):
        dropkey.audit(vit, torch.randn(2, 3, 16, 16))
    assert not any(part.training for part in vit.modules())


def test_a_compiled_model_and_inference_tensors(images):
    model = tiny_vit(attn_drop_rate=0.2, drop_path_rate=0.1)
    plain = [(f.module, f.what, f.declared) for f in dropkey.audit(model, images).findings]
    compiled = dropkey.audit(torch.compile(model), images)
    assert [(f.module, f.what, f.declared) for f in compiled.findings] == plain
    with torch.inference_mode():
        inference = dropkey.audit(model, images.clone())
    assert inference.ok, inference
    assert [(f.module, f.what, f.declared) for f in inference.findings] == plain


def test_what_differs_by_the_number_of_its_block_is_one_line(images):
    model = tiny_vit(attn_drop_rate=0.2, drop_path_rate=0.1)
    text = str(dropkey.audit(model, images))
    assert "blocks.{0-2}.attn.attn_drop (3)" in text
    assert "blocks.{1-2}.drop_path{1-2} (4)  drop path          drop_prob 0.05 to 0.1" in text
    assert len(text.splitlines()) == 4


def test_parts_that_did_not_run_are_named_and_not_judged():
    model = nn.ModuleDict({"used": nn.Linear(16, 16), "spare": nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.1))})
    model.forward = lambda x: model["used"](x)
    audit = dropkey.audit(model, tokens())
    assert audit.ok, audit
    assert audit.notes == ["Not run here, not judged: spare.1"]


@given(st.floats(0.01, 0.99), st.integers(1, 10**6))
def test_the_bound_holds_what_is_plausible_and_nothing_else(rate, draws):
    low, high = bounds(rate, draws)
    assert 0 <= low <= rate <= high <= 1
    assert is_plausible(low, rate, draws)
    assert is_plausible(high, rate, draws)
    assert low == 0 or not is_plausible(low - 1e-6, rate, draws)
    assert high == 1 or not is_plausible(high + 1e-6, rate, draws)


def test_the_bound_is_no_tighter_than_chance():
    """Against the exact tail of a binomial: of all shares outside of the bound, 1e-9 at most."""
    binomial = pytest.importorskip("scipy.stats").binom
    for rate, draws in [(0.1, 50), (0.1, 5000), (0.5, 400), (0.9, 1000)]:
        low, high = bounds(rate, draws)
        below = binomial.cdf(np.ceil(low * draws) - 1, draws, rate)
        above = binomial.sf(np.floor(high * draws), draws, rate)
        assert below + above <= 1e-9
        assert high - low < 16 * np.sqrt(rate * (1 - rate) / draws) + 20 / draws


def test_nothing_is_measured_on_nothing():
    with pytest.raises(dropkey.ArgumentError, match="these are empty: pass two images or more"):
        dropkey.audit(nn.Dropout(0.2), torch.empty(0, 8))
