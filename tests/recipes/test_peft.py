"""LoRA by peft around the same attention: every site acts, adapters train, and both go away again."""

import pytest
import safetensors.torch
import torch
import torchvision
from conftest import tiny_vit
from torch import nn

import dropkey

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

# transformers' own, when peft asks it for what it has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def transformers_vit():
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    return transformers.ViTForImageClassification(transformers.ViTConfig(image_size=32, patch_size=8, **shape))


def torchvision_vit():
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=5)
    nn.init.normal_(model.heads.head.weight)  # zero as torchvision makes it: nothing before it would matter
    return model


MODELS = {
    "timm": (lambda: tiny_vit(depth=2), ["qkv"]),
    "timm, all linear layers": (lambda: tiny_vit(depth=2), "all-linear"),
    "transformers": (transformers_vit, ["q_proj", "v_proj"]),
    "torchvision, nn.MultiheadAttention": (torchvision_vit, ["self_attention"]),
}
REGULARIZERS = [
    dropkey.DropKey(0.5, schedule="constant"),
    dropkey.DropKey(0.5, schedule="constant", pattern="token"),
    dropkey.DropKey(0.5, schedule="constant", pattern="block"),
    dropkey.AttentionDropout(0.5, schedule="constant", renormalize=True),
]
each_model = pytest.mark.parametrize("name", MODELS)
each_regularizer = pytest.mark.parametrize("regularizer", REGULARIZERS, ids=str)


def lora(name, **options):
    return peft.LoraConfig(r=2, target_modules=MODELS[name][1], init_lora_weights=False, **options)


def output(model, images):
    out = model(images)
    return getattr(out, "logits", out)


def seeded(model, images):
    torch.manual_seed(3)
    return output(model, images)


def trainable(model):
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("order", ["apply, then peft", "peft, then apply"])
@each_regularizer
@each_model
def test_both_at_once(name, regularizer, order, images):
    model = MODELS[name][0]()
    classes = [type(module) for module in model.modules()]
    if order == "apply, then peft":
        dropkey.apply(model, regularizer)
    adapted = peft.get_peft_model(model, lora(name))
    if order == "peft, then apply":
        dropkey.apply(adapted, regularizer)
    handle = dropkey.handle(adapted)
    assert len(handle.sites) == 2
    handle.verify(images)
    adapted.train()
    output(adapted, images).square().sum().backward()
    parameters = trainable(adapted)
    assert parameters
    assert all("lora_" in key and p.grad.abs().sum() > 0 for key, p in parameters.items())
    with_adapter = seeded(adapted, images)
    with adapted.disable_adapter():
        assert not torch.allclose(seeded(adapted, images), with_adapter)
    expected = output(adapted.eval(), images)
    merged = adapted.merge_and_unload()
    torch.testing.assert_close(output(merged, images), expected)
    handle = dropkey.handle(merged)
    handle.verify(images)
    handle.remove()
    assert [type(module) for module in merged.modules()] == classes
    torch.testing.assert_close(output(merged, images), expected)


@each_model
def test_saved_adapters_know_nothing_of_it(name, images, tmp_path):
    model = MODELS[name][0]()
    handle = dropkey.apply(model, dropkey.DropKey(0.3))
    adapted = peft.get_peft_model(model, lora(name))
    expected = output(adapted.eval(), images)
    adapted.save_pretrained(tmp_path)
    for on in (True, False):
        other = MODELS[name][0]()
        if on:
            dropkey.apply(other, handle.state_dict())
        torch.testing.assert_close(output(peft.PeftModel.from_pretrained(other, tmp_path).eval(), images), expected)


@each_model
def test_the_handle_may_leave_while_adapters_stay(name, images):
    model = MODELS[name][0]()
    handle = dropkey.apply(model, dropkey.DropKey(0.5, schedule="constant"))
    adapted = peft.get_peft_model(model, lora(name))
    handle.remove()
    assert torch.equal(seeded(adapted.train(), images), output(adapted, images))
    expected = output(adapted.eval(), images)
    torch.testing.assert_close(output(adapted.merge_and_unload(), images), expected)


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("name", ["timm", "transformers"])
def test_re_attention_among_the_modules_to_save(name, norm, images, tmp_path):
    """It trains, is verified, goes into the adapter's file and comes back."""
    model = MODELS[name][0]()
    handle = dropkey.apply(model, dropkey.ReAttention(norm=norm))
    dropped = dropkey.apply(model, dropkey.DropKey(0.3))
    untouched = output(model.eval(), images)
    adapted = peft.get_peft_model(model, lora(name, modules_to_save=["reattention"])).train()
    optimizer = torch.optim.SGD(adapted.parameters(), lr=0.1)
    for _ in range(2):
        output(adapted, images).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    gates = [p for key, p in trainable(adapted).items() if key.endswith("reattention.modules_to_save.default.gate")]
    assert len(gates) == 2
    checks = handle.verify(images).checks
    assert [check.gate for check in checks] == [gate.item() for gate in gates]
    assert all(check.gate != 0 for check in checks)
    dropped.verify(images)
    with adapted.disable_adapter():
        assert [check.gate for check in handle.verify(images).checks] == [0.0, 0.0]
        assert torch.equal(output(adapted.eval(), images), untouched)

    adapted.save_pretrained(tmp_path)
    expected = output(adapted.eval(), images)
    other = MODELS[name][0]()
    dropkey.apply(other, handle.state_dict())
    torch.testing.assert_close(output(peft.PeftModel.from_pretrained(other, tmp_path).eval(), images), expected)

    merged = adapted.merge_and_unload()
    torch.testing.assert_close(output(merged, images), expected)
    handle.verify(images)
    handle.remove()
    dropped.remove()
    assert list(merged.state_dict()) == list(MODELS[name][0]().state_dict())


@pytest.mark.parametrize("name", ["timm", "transformers"])
def test_re_attention_beside_peft(name, tmp_path):
    """What the page warns of: peft freezes what is there before it, and does not save what comes after it."""
    before, after = MODELS[name][0](), MODELS[name][0]()
    dropkey.apply(before, dropkey.ReAttention())
    assert not any("reattention" in key for key in trainable(peft.get_peft_model(before, lora(name))))
    adapted = peft.get_peft_model(after, lora(name))
    dropkey.apply(adapted, dropkey.ReAttention())
    assert any("reattention" in key for key in trainable(adapted))
    adapted.save_pretrained(tmp_path)
    saved = safetensors.torch.load_file(tmp_path / "adapter_model.safetensors")
    assert saved
    assert not any("reattention" in key for key in saved)


def test_lora_on_torch_layers():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 2, 64, dropout=0.1, batch_first=True), 2)
    config = peft.LoraConfig(r=2, target_modules=["self_attn"], init_lora_weights=False)
    handle = dropkey.apply(encoder, dropkey.DropKey(0.5, schedule="constant"))
    peft.get_peft_model(encoder, config)
    handle.verify(torch.randn(2, 7, 32))
