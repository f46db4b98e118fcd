"""Weights in the authors' key names give the logits of the authors' code.

``official_logits.json`` holds, for shallow models, the authors' key names with their shapes and the float32 logits that
their released code gave for the weights and images of ``oracles.filling`` (T2T-ViT at 0f63dc9, CeiT at 44c16d3, DeepViT
at 1ccb152 of the authors' repositories, run on timm 1.0.31 and torch 2.14.1).
"""

import json
from pathlib import Path

import pytest
import torch
from oracles.filling import filled, filled_images

import dropkey
from dropkey.models import ceit, deepvit, from_official, t2t_vit

CASES = json.loads((Path(__file__).parent / "official_logits.json").read_text())
IDS = [f"{case['name']}-{'-'.join(case['kwargs'])}" for case in CASES]


def weights_of(case):
    return {key: filled(key, tuple(shape)) for key, shape in case["shapes"].items()}


def relative_difference(logits, recorded):
    expected = torch.tensor(recorded)
    return ((logits - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_logits_of_the_authors_code(case):
    model = from_official(case["name"], weights_of(case), **case["kwargs"]).eval()
    with torch.no_grad():
        logits = model(filled_images(2, case["img_size"]))
    assert relative_difference(logits, case["logits"]) < 1e-5


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_every_weight_counts(case):
    """A converter that left some weights at their initial values would pass with a test that ignores them."""
    weights = weights_of(case)
    model = from_official(case["name"], weights, **case["kwargs"]).eval()
    state = {key: value for key, value in model.state_dict().items() if "num_batches" not in key}
    values = {key: value for key, value in weights.items() if "num_batches" not in key}
    assert sorted(value.double().sum().item() for value in state.values()) == sorted(
        value.double().sum().item() for value in values.values()
    )


def test_the_two_scales_of_t2t_vit_differ():
    plain, scaled = (case for case in CASES if case["name"] == "t2t_vit_7")
    assert relative_difference(torch.tensor(plain["logits"]), scaled["logits"]) > 1e-3


@pytest.mark.parametrize("wrapper", ["state_dict", "state_dict_ema", "model"])
def test_wrapped_and_prefixed_weights(wrapper):
    case = CASES[0]
    checkpoint = {wrapper: {f"module.{key}": value for key, value in weights_of(case).items()}, "epoch": 3}
    model = from_official(case["name"], checkpoint, **case["kwargs"]).eval()
    with torch.no_grad():
        assert relative_difference(model(filled_images(2, case["img_size"])), case["logits"]) < 1e-5


def test_averaged_weights_go_first():
    case = CASES[0]
    weights = weights_of(case)
    checkpoint = {"state_dict": {k: torch.zeros_like(v) for k, v in weights.items()}, "state_dict_ema": weights}
    model = from_official(case["name"], checkpoint, **case["kwargs"])
    assert torch.equal(model.head.weight, weights["head.weight"])


def test_missing_unexpected_and_misshapen_weights_are_named_in_one_line():
    case = CASES[0]
    weights = weights_of(case)
    weights["blocks.7.extra"] = weights.pop("tokens_to_token.project.bias")
    weights["norm.bias"] = torch.zeros(3)
    with pytest.raises(dropkey.DropKeyError) as error:
        from_official(case["name"], weights, **case["kwargs"])
    message = str(error.value)
    assert "1 missing (patch_embed.proj.bias)" in message
    assert "1 unexpected (blocks.7.extra)" in message
    assert "1 of another shape (norm.bias)" in message
    assert "\n" not in message


def test_unknown_name():
    with pytest.raises(dropkey.DropKeyError, match="'t2t_vit_41'; did you mean 't2t_vit_24'"):
        from_official("t2t_vit_41", {})


def test_every_variant_has_a_converter():
    from dropkey.models.official import _RENAMES

    assert set(_RENAMES) == {*t2t_vit.VARIANTS, *ceit.VARIANTS, *deepvit.VARIANTS, *deepvit.PLAIN_VARIANTS}
