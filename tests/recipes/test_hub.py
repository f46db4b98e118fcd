"""Models that are saved for a hub with the handle on: the files are those of the plain model."""

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

import dropkey

transformers = pytest.importorskip("transformers")

SHAPE = {"img_size": 32, "patch_size": 8, "depth": 2}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", num_classes=5, **SHAPE).eval()


def saved(model, folder):
    timm.models.save_for_hf(model, folder, model_args=SHAPE, safe_serialization=True)
    return safetensors.torch.load_file(Path(folder) / "model.safetensors")


def test_timm_saves_and_reads_back(model, images, tmp_path):
    plain = saved(model, tmp_path / "plain")
    handle = dropkey.apply(model, dropkey.DropKey(0.3))
    weights = saved(model, tmp_path / "on")
    assert weights.keys() == plain.keys()
    assert all(torch.equal(weights[name], plain[name]) for name in plain)
    files = [(tmp_path / folder / "config.json").read_text() for folder in ("plain", "on")]
    assert files[0] == files[1]
    again = timm.create_model(f"local-dir:{tmp_path / 'on'}", pretrained=True).eval()
    assert torch.equal(again(images), model(images))
    dropkey.apply(again, handle.state_dict()).verify(images)


def test_timm_pushes_the_same_files(model, images, tmp_path, monkeypatch):
    """All of push_to_hf_hub but the network."""
    uploaded = tmp_path / "uploaded"

    class Hub:
        repo_id = "someone/vit"

        def __init__(self, **kwargs):
            pass

        def create_repo(self, repo_id, **kwargs):
            return self

        def file_exists(self, **kwargs):
            return False

        def upload_folder(self, folder_path, **kwargs):
            shutil.copytree(folder_path, uploaded)

    monkeypatch.setattr(timm.models._hub, "HfApi", Hub)
    dropkey.apply(model, dropkey.DropKey(0.3))
    timm.models.push_to_hf_hub(model, "someone/vit", model_args=SHAPE)
    again = timm.create_model(f"local-dir:{uploaded}", pretrained=True).eval()
    assert torch.equal(again(images), model(images))


def test_re_attention_comes_back_with_its_settings(model, images, tmp_path):
    handle = dropkey.apply(model, dropkey.ReAttention(last=1))
    model.blocks[1].attn.reattention.gate.data.fill_(0.7)
    saved(model, tmp_path)
    (tmp_path / "dropkey.json").write_text(json.dumps(handle.state_dict()))
    with pytest.raises(RuntimeError, match=r"Unexpected key.*reattention"):
        timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    again = timm.create_model(f"local-dir:{tmp_path}").eval()
    dropkey.apply(again, json.loads((tmp_path / "dropkey.json").read_text()))
    timm.models.load_checkpoint(again, str(tmp_path / "model.safetensors"))
    assert torch.equal(again(images), model(images))


def transformers_vit(cls=None):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.ViTConfig(image_size=32, patch_size=8, **shape)
    return (cls or transformers.ViTForImageClassification)(config).eval()


def test_transformers_saves_and_reads_back(images, tmp_path):
    model = transformers_vit()
    dropkey.apply(model, dropkey.DropKey(0.3))
    model.save_pretrained(tmp_path)
    again = transformers.ViTForImageClassification.from_pretrained(tmp_path)
    assert torch.equal(again(images).logits, model(images).logits)


def test_applied_in_the_constructor_of_a_model_that_transformers_loads(images, tmp_path):
    """from_pretrained builds models without memory for tensors; the ratios are not to be among those."""

    class WithDropKey(transformers.ViTForImageClassification):
        def __init__(self, config):
            super().__init__(config)
            dropkey.apply(self, dropkey.DropKey(0.3, schedule="constant"))

    model = transformers_vit(WithDropKey)
    model.save_pretrained(tmp_path)
    for cls in (WithDropKey, transformers.ViTForImageClassification):
        assert torch.equal(cls.from_pretrained(tmp_path)(images).logits, model(images).logits)
    handle = dropkey.handle(WithDropKey.from_pretrained(tmp_path))
    assert handle.drop_ratios == (0.3, 0.3)
    handle.verify(images)


def test_re_attention_in_transformers_comes_back_through_the_state_dict(images, tmp_path):
    model = transformers_vit()
    handle = dropkey.apply(model, dropkey.ReAttention())
    for name, parameter in model.named_parameters():
        if name.endswith("reattention.gate"):
            parameter.data.fill_(0.7)
    model.save_pretrained(tmp_path)
    without = transformers.ViTForImageClassification.from_pretrained(tmp_path)
    assert not torch.allclose(without(images).logits, model(images).logits)  # it leaves them out, as the page says
    torch.save({"model": model.state_dict(), "dropkey": handle.state_dict()}, tmp_path / "all.pt")
    saved = torch.load(tmp_path / "all.pt", weights_only=True)
    again = transformers.ViTForImageClassification(transformers.ViTConfig.from_pretrained(tmp_path))
    dropkey.apply(again, saved["dropkey"])
    again.load_state_dict(saved["model"])
    assert torch.equal(again.eval()(images).logits, model(images).logits)
