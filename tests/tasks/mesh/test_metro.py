"""METRO and plain regression: sizes, what its parts do, and that DropKey acts on all its attention."""

import dataclasses

import numpy as np
import pytest
import torch
from oracles import toy_bodies

import dropkey
from dropkey.data.body_batches import BodyBatch
from dropkey.errors import ArgumentError, DropKeyError
from dropkey.tasks.mesh.body_network import BodyNetwork, level_indices, with_joints
from dropkey.tasks.mesh.levels import farthest_vertices, interpolation
from dropkey.tasks.mesh.loss import JOINT_LOSSES
from dropkey.tasks.mesh.metro import Metro
from dropkey.tasks.mesh.presets import MESH_TRANSFORMERS, PRESETS, build_body_network
from dropkey.tasks.mesh.regression import Regression


def metro(topology=None, **changes):
    torch.manual_seed(0)
    shape = dataclasses.replace(PRESETS["metro_mini"].shape, levels=(10, 20), **changes)
    return with_backbone(topology or toy_bodies.topology(), shape)


def with_backbone(topology, shape, predictor=Metro):
    indices = level_indices(topology, shape.levels)
    points = predictor(with_joints(topology.template_mm, topology, indices[0]), shape, channels=8, places=4)
    return BodyNetwork(Backbone(), points, topology, indices, points.width)


class Backbone(torch.nn.Module):
    """A picture's mean colors at 2 x 2 places, in 8 channels."""

    def __init__(self):
        super().__init__()
        self.mix = torch.nn.Conv2d(3, 8, 1)

    def forward_features(self, images):
        return self.mix(torch.nn.functional.adaptive_avg_pool2d(images, 2))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters_of_the_published_transformer():
    """The published code prints 102,256,646. It counts what BERT brings and METRO never uses; the rest is ours."""
    shape = PRESETS["metro_hrnet_w64"].shape
    assert PRESETS["metro_r50"].shape == shape
    network = Metro(torch.zeros(14 + 431, 3), shape, channels=2048, places=49)
    widths = sum(shape.widths)
    words, types, norms = 30_522 * widths, 2 * widths, 2 * widths
    positions_of_words = 512 * widths
    poolers = sum(width * width + width for width in shape.widths)
    rows_without_token = (512 - 14 - 431) * widths  # its table of positions is longer than there are tokens
    unused = words + types + norms + positions_of_words + poolers + rows_without_token
    assert count(network.encoders) + unused == 102_256_646


def test_levels_are_nested_and_end_in_the_whole_surface():
    network = metro().eval()
    body = network(torch.randn(2, 3, 32, 32))
    assert [level.shape for level in body.levels] == [(2, 10, 3), (2, 20, 3), (2, 40, 3)]
    assert body.joints.shape == (2, toy_bodies.JOINTS, 3)
    assert body.camera.shape == (2, 3)
    coarse, middle, whole = (indices.tolist() for indices in network.level_indices)
    assert coarse == middle[:10]
    assert whole == list(range(40))


def test_training_begins_at_the_mean_body():
    network = metro().eval()
    body = network(torch.randn(2, 3, 32, 32))
    mean = torch.from_numpy(toy_bodies.topology().mean_mm) / 1000
    assert (body.vertices - mean).abs().max() < 0.05
    assert (network.joints_of(mean[None]) - mean[: toy_bodies.JOINTS]).abs().max() < 1e-6


def test_a_point_is_seen_where_scale_and_shift_put_it():
    body = metro().eval()(torch.zeros(1, 3, 32, 32))._replace(camera=torch.tensor([[0.5, 0.2, -0.1]]))
    seen = body.seen(torch.tensor([[[0.4, 0.3, 7.0]]]))
    assert seen.tolist() == [[[pytest.approx(0.5 * 0.6), pytest.approx(0.5 * 0.2)]]]


def test_plain_regression_begins_at_the_mean_body_and_has_no_attention():
    topology = toy_bodies.topology()
    network = with_backbone(topology, PRESETS["regression_mini"].shape, Regression).eval()
    body = network(torch.randn(2, 3, 32, 32))
    mean = torch.from_numpy(topology.mean_mm) / 1000
    assert (body.vertices - mean).abs().max() < 0.05
    assert not torch.equal(body.vertices[0], body.vertices[1])
    with pytest.raises(DropKeyError, match="attention"):
        dropkey.apply(network, dropkey.DropKey(0.3))


def test_masking_hides_up_to_its_ratio_in_training_alone():
    network = metro(mask_ratio=0.4).predictor
    tokens = torch.ones(2000, 15, 6)
    masked = network.train()._masked(tokens)
    lost = (masked == 0.01).all(-1)
    assert ((masked == 1).all(-1) | lost).all(), "a token is masked whole or not at all"
    assert lost.double().mean() == pytest.approx(0.2, abs=0.02), "the share is drawn from 0 to the ratio"
    assert lost.double().mean(1).std() > 0.12, "and for each body anew"
    assert network.eval()._masked(tokens) is tokens
    assert metro().predictor.train()._masked(tokens) is tokens


def test_dropkey_acts_on_every_encoder_layer():
    network = metro()
    handle = dropkey.apply(network, dropkey.DropKey(0.3, "constant"))
    assert len(handle.sites) == 3 * PRESETS["metro_mini"].shape.depth
    report = handle.verify(torch.randn(4, 3, 32, 32))
    assert report


@pytest.mark.parametrize("name", MESH_TRANSFORMERS)
def test_attention_has_no_dropout_of_its_own(name):
    """Attention dropout is the baseline arm, chosen as a regularizer; two of them would add up unseen."""
    shape = dataclasses.replace(PRESETS[name].shape, widths=(8, 8, 8), feedforward=(8, 8, 8), outputs=(8, 8))
    network = with_backbone(toy_bodies.topology(), shape)
    layers = [m for m in network.modules() if isinstance(m, torch.nn.TransformerEncoderLayer)]
    assert len(layers) == 3 * shape.depth
    assert {layer.self_attn.dropout for layer in layers} == {0.0}
    assert {layer.dropout1.p for layer in layers} == {shape.dropout}
    assert {layer.norm_first for layer in layers} == {shape.norm_first}


def test_the_linear_path_goes_around_an_encoder():
    network = metro()
    encoder = network.predictor.encoders[0]
    torch.nn.init.zeros_(encoder.head.weight)
    torch.nn.init.zeros_(encoder.head.bias)
    tokens = torch.randn(2, 15, 67)
    assert torch.equal(encoder(tokens), encoder.around(tokens))


def batch(network):
    examples = [toy_bodies.ToyBodies(0, 3)[i] for i in range(3)]
    parts = ([e.vertices_mm / 1000 for e in examples], [e.joints_mm / 1000 for e in examples])
    truth = [torch.from_numpy(np.stack(part)) for part in parts]
    return BodyBatch(torch.zeros(3, 3, 32, 32), *truth, torch.from_numpy(np.stack([e.joints_2d for e in examples])))


@pytest.mark.parametrize("name", JOINT_LOSSES)
def test_loss_is_the_sum_of_its_parts(name):
    network, loss = metro().eval(), JOINT_LOSSES[name]
    truth = batch(network)
    body = network(truth.images)
    vertices, joints, picture = (part.numpy() for part in truth[1:])
    centered = joints - joints[:, list(toy_bodies.HIPS)].mean(1, keepdims=True)

    def distance(a, b):
        return float(((a - b) ** 2).mean() if name == "mse" else np.abs(a - b).mean())

    expected = 0.0
    for points in (body.joints, network.joints_of(body.vertices)):
        found = points.detach().numpy()
        expected += loss.joints * distance(found - found[:, list(toy_bodies.HIPS)].mean(1, keepdims=True), centered)
        expected += loss.seen * distance(body.seen(points).detach().numpy(), picture)
    surface = vertices - joints[:, list(toy_bodies.HIPS)].mean(1, keepdims=True)
    for level, indices in zip(body.levels, network.level_indices, strict=True):
        expected += loss.vertices * float(np.abs(level.detach().numpy() - surface[:, indices]).mean())
    assert float(loss(network, body, truth, toy_bodies.HIPS).detach()) == pytest.approx(expected, 1e-5)


def test_the_true_body_has_no_loss():
    network = metro()
    truth = batch(network)
    levels = tuple(truth.vertices[:, indices] for indices in network.level_indices)
    body = network(truth.images)._replace(joints=truth.joints, levels=levels, camera=torch.tensor([[1.0, 0, 0]] * 3))
    for loss in JOINT_LOSSES.values():
        assert float(loss(network, body, truth, toy_bodies.HIPS)) == pytest.approx(0, abs=1e-4)


def test_farthest_vertices_are_spread():
    line = np.c_[np.arange(11.0), np.zeros(11), np.zeros(11)].astype(np.float32)
    assert farthest_vertices(line, 3).tolist() == [0, 10, 5]
    assert sorted(farthest_vertices(line, 11).tolist()) == list(range(11))


def test_interpolation_keeps_coarse_vertices_and_sums_to_one():
    points = np.random.default_rng(1).normal(size=(30, 3)).astype(np.float32)
    weights = interpolation(points, points[:10])
    assert np.allclose(weights.sum(1), 1, atol=1e-5)
    assert (np.count_nonzero(weights, axis=1) == 3).all()
    assert (weights[:10].argmax(1) == np.arange(10)).all()
    assert weights[:10].max(1).min() > 0.99


def test_names_and_sizes_that_cannot_be():
    arguments = {"mask_ratio": 0.0, "dropout": 0.0}
    with pytest.raises(ArgumentError, match="did you mean 'metro_mini'"):
        build_body_network("metro_mimi", toy_bodies.topology(), 64, **arguments)
    with pytest.raises(ArgumentError, match="--img-size 16 is too small"):
        build_body_network("metro_mini", toy_bodies.topology(), 16, **arguments)
