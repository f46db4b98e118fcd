"""The names of the backbones in timm's registry."""

import subprocess
import sys

import pytest
import timm

from dropkey.models import ceit, deepvit, t2t_vit

FAMILIES = {
    "t2t_vit": t2t_vit.VARIANTS,
    "ceit": ceit.VARIANTS,
    "deepvit": {**deepvit.VARIANTS, **deepvit.PLAIN_VARIANTS},
}


@pytest.mark.parametrize("module", FAMILIES)
def test_names_of_the_registry(module):
    assert set(timm.list_models(module=module)) == set(FAMILIES[module])


VARIANTS = {name: arguments for variants in FAMILIES.values() for name, arguments in variants.items()}


@pytest.mark.parametrize("name", VARIANTS)
def test_configuration(name):
    cfg = timm.get_pretrained_cfg(name)
    assert not cfg.has_weights
    shallow = {"depth": 1, **({"reattention": 1} if "reattention" in VARIANTS[name] else {})}
    model = timm.create_model(name, device="meta", in_chans=1, num_classes=3, **shallow)
    assert model.pretrained_cfg["architecture"] == name
    modules = dict(model.named_modules())
    assert modules[cfg.classifier].out_features == 3
    assert cfg.first_conv is None or modules[cfg.first_conv].in_channels == 1


def test_a_typo_in_an_argument_is_an_error():
    with pytest.raises(TypeError, match="drop_path_ratio"):
        timm.create_model("t2t_vit_7", drop_path_ratio=0.1, device="meta")


def test_models_come_when_first_asked_for():
    code = "import dropkey, sys; assert 'timm' not in sys.modules; print(dropkey.models.from_official.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "from_official\n"
