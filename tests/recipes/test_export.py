"""A trained model whose handle was removed is a plain model; with a handle on it exports as well."""

import io

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch
from conftest import tiny_vit
from torch.export import Dim
from torch.nn import functional as F
from torchvision.models.feature_extraction import create_feature_extractor

import dropkey
from dropkey.adapters.site import site_of

transformers = pytest.importorskip("transformers")


class Logits(torch.nn.Module):
    """A model of transformers that takes images by position and returns a tensor, as exporting wants it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images).logits


def transformers_vit(implementation="sdpa"):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.ViTConfig(image_size=32, patch_size=8, num_labels=5, **shape)
    model = transformers.ViTForImageClassification(config)
    model.set_attn_implementation(implementation)
    return Logits(model)


MODELS = {
    "timm ViT": lambda: tiny_vit(depth=2),
    "timm DeiT III": lambda: tiny_vit("deit3_small_patch16_224", depth=2, init_values=0.5),
    "timm BEiT": lambda: tiny_vit("beit_base_patch16_224", depth=2),
    "transformers ViT": transformers_vit,
    "transformers ViT, eager": lambda: transformers_vit("eager"),
}
each_model = pytest.mark.parametrize("name", MODELS)
few_models = pytest.mark.parametrize(
    "name", [name if "ViT" in name[-3:] else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
each_re_attention = pytest.mark.parametrize("norm", ["batch", "layer"])


def trained(model, regularizer, images, steps=2):
    handle = dropkey.apply(model.train(), regularizer)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for _ in range(steps):
        F.cross_entropy(model(images), torch.tensor([1, 3])).backward()
        optimizer.step()
        optimizer.zero_grad()
    return handle


def with_re_attention(model, norm, images):
    """A model whose outputs Re-attention changes: its gates have left 0."""
    trained(model, dropkey.ReAttention(norm=norm), images)
    for name, parameter in model.named_parameters():
        if name.endswith("reattention.gate"):
            parameter.data.fill_(0.6)
    return model.eval()


def exported(model, images):
    return torch.export.export(model, (images,), dynamic_shapes=({0: Dim.DYNAMIC},))


def operations(program):
    return [(node.op, str(node.target)) for node in program.graph.nodes]


def run_onnx(model, example, images):
    program = torch.onnx.export(model, (example,), dynamo=True, verbose=False, dynamic_shapes=({0: Dim.DYNAMIC},))
    file = io.BytesIO()
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue())
    return session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]


def more(images):
    """A batch of another size than the one that a model was exported with."""
    return torch.cat([images, 0.5 * images, -images[:1]])


@each_model
def test_after_removal_it_is_a_plain_model(name, images):
    model, plain = MODELS[name](), MODELS[name]()
    untrained = plain.eval()(images)
    trained(model, dropkey.DropKey(0.3, schedule="constant"), images).remove()
    model.eval()
    assert [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]
    assert list(model.state_dict()) == list(plain.state_dict())
    for module in model.modules():
        assert site_of(module) is None
        assert not any(key for key in vars(module) if "dropkey" in key)
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    plain.load_state_dict(model.state_dict())
    assert not torch.equal(plain(images), untrained)
    assert torch.equal(plain(images), model(images))


def test_removed_re_attention_leaves_a_plain_model(images):
    model, plain = tiny_vit(depth=2), tiny_vit(depth=2).eval()
    trained(model, dropkey.ReAttention(), images).remove()
    plain.load_state_dict(model.state_dict())
    assert [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]
    assert torch.equal(plain(images), model.eval()(images))


@pytest.mark.parametrize("is_removed", [True, False], ids=["removed", "still on"])
@each_model
def test_weights_through_files(name, is_removed, images, tmp_path):
    model = MODELS[name]()
    handle = trained(model, dropkey.DropKey(0.3, pattern="token"), images)
    if is_removed:
        handle.remove()
    expected = model.eval()(images)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    safetensors.torch.save_model(model, str(tmp_path / "weights.safetensors"))
    one, other = MODELS[name]().eval(), MODELS[name]().eval()
    one.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    safetensors.torch.load_model(other, str(tmp_path / "weights.safetensors"))
    assert torch.equal(one(images), expected)
    assert torch.equal(other(images), expected)


@few_models
def test_export_is_that_of_a_plain_model(name, images):
    """Removed, or still on in evaluation mode: the same graph as without dropkey, and the model's outputs."""
    model = MODELS[name]()
    plain = operations(exported(model.eval(), images))
    handle = trained(model, dropkey.DropKey(0.3, schedule="constant"), images)
    model.eval()
    still_on = exported(model, images)
    handle.remove()
    removed = exported(model, images)
    assert operations(still_on) == operations(removed) == plain
    for program in (still_on, removed):
        torch.testing.assert_close(program.module()(more(images)), model(more(images)))


def test_an_exported_program_is_saved_and_loaded(images):
    model = tiny_vit(depth=2)
    trained(model, dropkey.DropKey(0.3), images)
    file = io.BytesIO()
    torch.export.save(exported(model.eval(), images), file)
    file.seek(0)
    assert torch.equal(torch.export.load(file).module()(images), model(images))


def test_exported_in_training_mode_it_goes_on_dropping(images):
    model = tiny_vit(depth=2)
    dropkey.apply(model.train(), dropkey.DropKey(0.5, schedule="constant"))
    program = torch.export.export(model, (images,)).module()
    assert not torch.equal(program(images), program(images))


@pytest.mark.parametrize(
    ("name", "is_removed"), [("timm ViT", True), ("transformers ViT", False)], ids=["removed", "still on"]
)
def test_onnx(name, is_removed, images):
    model = MODELS[name]()
    handle = trained(model, dropkey.DropKey(0.3), images)
    if is_removed:
        handle.remove()
    expected = model.eval()(more(images)).detach()
    np.testing.assert_allclose(run_onnx(model, images, more(images)), expected, rtol=1e-4, atol=1e-5)


@each_re_attention
@few_models
def test_re_attention_exports(name, norm, images):
    model = with_re_attention(MODELS[name](), norm, images)
    expected = model(more(images))
    torch.testing.assert_close(exported(model, images).module()(more(images)), expected)
    plain = MODELS[name]().eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    assert (plain(more(images)) - expected).abs().max() > 1e-3


@each_re_attention
def test_re_attention_to_onnx(norm, images):
    model = with_re_attention(tiny_vit(depth=1), norm, images)
    dropkey.apply(model, dropkey.DropKey(0.3))
    expected = model(more(images)).detach()
    np.testing.assert_allclose(run_onnx(model, images, more(images)), expected, rtol=1e-4, atol=1e-5)


def test_symbolic_tracing(images):
    """torch.fx takes each site as it is, in both modes; without the handle it sees what is inside."""
    model = tiny_vit(depth=2)
    dropkey.apply(model, dropkey.DropKey(0.3))
    for mode in (True, False):
        traced = torch.fx.symbolic_trace(model.train(mode)).eval()
        assert torch.equal(traced(images), model.eval()(images))
        assert not torch.equal(*(traced.train()(images) for _ in range(2)))
    features = create_feature_extractor(model, ["blocks.1"]).train()
    assert not torch.equal(*(features(images)["blocks.1"] for _ in range(2)))
    dropkey.handle(model).remove()
    assert len(torch.fx.symbolic_trace(model).graph.nodes) > len(traced.graph.nodes)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_scripting_after_removal(images):
    model = tiny_vit(depth=1)
    handle = dropkey.apply(model.eval(), dropkey.DropKey(0.3))
    with pytest.raises(torch.jit.frontend.NotSupportedError):
        torch.jit.script(model)
    handle.remove()
    torch.testing.assert_close(torch.jit.script(model)(images), model(images))
