"""Head mixing against the NumPy oracle: values, statistics, the identity start, checkpointing."""

import numpy as np
import pytest
import torch
from oracles import reattention as oracle
from torch import nn
from torch.utils.checkpoint import checkpoint

import dropkey
from dropkey.ops.reattention import GatedHeadMixing, HeadMixing, mix_heads

HEADS = 3
each_norm = pytest.mark.parametrize("norm", ["batch", "layer"])


def attention_maps(batch=2, queries=4, keys=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, HEADS, queries, keys, generator=generator, dtype=torch.float64).softmax(-1)


def mixing(norm="batch", cls=HeadMixing):
    """A module whose parameters and statistics are all different from their start."""
    torch.manual_seed(0)
    module = cls(HEADS, norm, dtype=torch.float64)
    with torch.no_grad():
        module.norm.weight.copy_(torch.tensor([0.5, 1.5, -1.0]))
        module.norm.bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
        if norm == "batch":
            module.norm.running_mean.copy_(torch.tensor([0.2, 0.0, -0.1]))
            module.norm.running_var.copy_(torch.tensor([0.5, 2.0, 1.0]))
    return module


def expected(module, attn, training):
    maps = oracle.mixed(attn.numpy(), module.theta.weight.detach().numpy()[:, :, 0, 0], _array(module.theta.bias))
    weight, bias = _array(module.norm.weight), _array(module.norm.bias)
    if isinstance(module.norm, nn.LayerNorm):
        return oracle.layer_normalized(maps, weight, bias)
    statistics = () if training else (_array(module.norm.running_mean), _array(module.norm.running_var))
    return oracle.batch_normalized(maps, weight, bias, *statistics)


def _array(tensor):
    return None if tensor is None else tensor.detach().numpy().copy()


@each_norm
@pytest.mark.parametrize("training", [True, False])
def test_values(norm, training):
    module, attn = mixing(norm).train(training), attention_maps()
    want = expected(module, attn, training)
    np.testing.assert_allclose(module(attn).detach().numpy(), want, rtol=1e-10, atol=1e-12)


def test_mix_heads_is_a_sum_over_heads():
    attn, theta, bias = attention_maps(), torch.randn(HEADS, HEADS).double(), torch.randn(HEADS).double()
    want = oracle.mixed(attn.numpy(), theta.numpy(), bias.numpy())
    np.testing.assert_allclose(mix_heads(attn, theta, bias).numpy(), want, rtol=1e-12)


def test_the_two_forms():
    batch, layer = HeadMixing(HEADS), HeadMixing(HEADS, "layer")
    assert batch.theta.bias is not None
    assert batch.theta.weight.abs().max() <= HEADS**-0.5  # torch's default for 1x1 convolutions
    assert isinstance(batch.norm, nn.BatchNorm2d)
    assert layer.theta.bias is None
    assert isinstance(layer.norm, nn.LayerNorm)
    torch.manual_seed(0)
    assert HeadMixing(64, "layer").theta.weight.std().item() == pytest.approx(1, abs=0.05)


@each_norm
@pytest.mark.parametrize("training", [True, False])
def test_the_gate_starts_at_no_change_at_all(norm, training):
    module, attn = mixing(norm, GatedHeadMixing).train(training), attention_maps()
    change = module(attn)
    assert torch.equal(attn + change, attn)
    change.sum().backward()
    assert module.gate.grad.abs() > 0
    assert module.theta.weight.grad.abs().max() == 0
    with torch.no_grad():
        module.gate.fill_(0.25)
    want = 0.25 * (expected(module, attn, training) - attn.numpy())
    np.testing.assert_allclose(module(attn).detach().numpy(), want, rtol=1e-10, atol=1e-12)


def test_running_statistics_are_those_of_the_batch():
    module, attn = mixing().train(), attention_maps()
    before = _array(module.norm.running_mean)
    maps = oracle.mixed(attn.numpy(), _array(module.theta.weight)[:, :, 0, 0], _array(module.theta.bias))
    module(attn)
    np.testing.assert_allclose(_array(module.norm.running_mean), 0.9 * before + 0.1 * maps.mean(axis=(0, 2, 3)))


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_a_checkpoint_counts_a_batch_once(use_reentrant):
    """Planted fault: torch's own batch norm counts it twice."""
    plain, kept, torchs = mixing().train(), mixing().train(), mixing().norm.train()
    inputs = [attention_maps().requires_grad_() for _ in range(3)]
    plain(inputs[0]).square().sum().backward()
    checkpoint(kept, inputs[1], use_reentrant=use_reentrant).square().sum().backward()
    checkpoint(torchs, inputs[2], use_reentrant=use_reentrant).square().sum().backward()
    assert torchs.num_batches_tracked == 2
    assert kept.norm.num_batches_tracked == 1
    assert torch.equal(kept.norm.running_mean, plain.norm.running_mean)
    assert torch.equal(kept.norm.running_var, plain.norm.running_var)
    assert torch.equal(inputs[0].grad, inputs[1].grad)
    buffers = dict(kept.norm.named_buffers())
    kept(attention_maps())
    assert kept.norm.num_batches_tracked == 2
    assert all(buffers[name] is buffer for name, buffer in kept.norm.named_buffers())


def test_sync_batch_norm_takes_over():
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(mixing(cls=GatedHeadMixing))
    assert isinstance(converted.norm, nn.SyncBatchNorm)
    converted.eval()
    assert converted(attention_maps()).shape == (2, HEADS, 4, 5)


@each_norm
def test_half_precision_parameters(norm):
    module = mixing(norm).bfloat16().train()
    out = module(attention_maps().float())
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()


def test_unknown_norm():
    with pytest.raises(dropkey.DropKeyError, match="unknown norm 'bacth' for Re-attention; did you mean 'batch'"):
        HeadMixing(HEADS, "bacth")
