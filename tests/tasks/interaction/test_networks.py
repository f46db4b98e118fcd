"""The three networks: what they return, that every weight learns, and what they pair."""

import dataclasses

import numpy as np
import pytest
import torch

from dropkey import DropKey
from dropkey.data.box_transforms import BoxAugmentation, DetectorInput
from dropkey.data.digit_pairs import digit_pairs
from dropkey.data.pair_batches import PairData
from dropkey.data.paired_images import PairTarget
from dropkey.errors import ArgumentError
from dropkey.tasks.detection.parts import apply_to_parts
from dropkey.tasks.interaction.network import build_pair_network
from dropkey.tasks.interaction.pair_head.box_features import NUM_BOX_FEATURES, box_features
from dropkey.tasks.interaction.pair_head.candidates import candidate_pairs, token_labels
from dropkey.tasks.interaction.task import TASK

KINDS = [("d_fine_mini", "pair"), ("d_fine_mini", "qpic"), ("detr_mini", "qpic"), ("detr_mini", "pair")]


@pytest.fixture(scope="module")
def source():
    return digit_pairs()


@pytest.fixture(scope="module")
def batch(source):
    wanted = DetectorInput((128, 128), False, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    data = PairData(source, wanted, BoxAugmentation(), 2, 0)
    examples = data.clean_dataset("train", range(3))
    batch = data.collate([examples[index] for index in range(2)])
    batch.pop("indices")
    return batch


def network(source, model, heads):
    torch.manual_seed(0)
    return build_pair_network(TASK.resolve({"model": model, "heads": heads}), source)[0]


@pytest.mark.parametrize(("model", "heads"), KINDS)
def test_networks(source, batch, model, heads):
    net = network(source, model, heads)
    result = net(**batch)
    result.loss.backward()
    assert torch.isfinite(result.loss)
    assert [name for name, p in net.named_parameters() if p.requires_grad and p.grad is None] == []
    net.eval()
    found = net(batch["pixel_values"]).found
    images, pairs = found.scores.shape[:2]
    assert (images, found.scores.shape[2]) == (2, len(source.verbs))
    assert found.subject_boxes.shape == found.object_boxes.shape == (2, pairs, 4)
    assert found.queries.shape == (2, pairs, 2)
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    assert found.has_object.all()
    torch.testing.assert_close(net(**batch).found.scores, found.scores)  # labels change no answer


@pytest.mark.parametrize(("model", "heads"), KINDS[:3])
def test_regularizers_act_where_they_are_asked_to(source, batch, model, heads):
    net = network(source, model, heads)
    net.eval()
    before = net(batch["pixel_values"]).found.scores
    handle = apply_to_parts(net, DropKey(0.3), ["encoder", "decoder"])
    assert {site.name.rpartition(".")[2] for site in handle.sites} == {"self_attn"}
    if heads == "pair":
        assert "pair_head.encoder.0.self_attn" in [site.name for site in handle.sites]
    torch.testing.assert_close(net(batch["pixel_values"]).found.scores, before)
    net.train()
    assert torch.isfinite(net(**batch).loss)


def test_where_names_a_part_that_is_not_there(source):
    with pytest.raises(ArgumentError, match="--where cross"):
        apply_to_parts(network(source, "d_fine_mini", "pair"), DropKey(0.1), ["cross"])


def test_heads_that_a_model_cannot_have(source):
    with pytest.raises(ArgumentError, match="--heads qpic takes detr or d_fine, and yolos_mini is a yolos"):
        network(source, "yolos_mini", "qpic")
    with pytest.raises(ArgumentError, match="--heads pair: yolos_mini has no decoder"):
        network(source, "yolos_mini", "pair")


def test_pairs_without_an_object_have_a_class_of_their_own(source, batch):
    missing = dataclasses.replace(source, may_miss=True)
    targets = [
        PairTarget(
            torch.tensor([10]), torch.tensor([False]), target.verbs[:1], target.subject_boxes[:1], torch.zeros(1, 4)
        )
        for target in batch["pairs"]
    ]
    for model in ("d_fine_mini", "detr_mini"):
        net = network(missing, model, "qpic")
        result = net(**{**batch, "pairs": targets})
        result.loss.backward()
        assert torch.isfinite(result.loss)


@pytest.mark.parametrize("guesses", [1, 2])
def test_candidates_are_the_likeliest_persons_and_objects(guesses):
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(2, 12, 4, generator=generator)
    is_object = torch.tensor([False, True, False, True])
    chosen = candidate_pairs(probabilities, 0, is_object, guesses)
    for image in range(2):
        p = probabilities[image].numpy()
        persons = np.argsort(-p[:, 0])[:5]
        objects = np.argsort(-p[:, [1, 3]].max(1))[:10]
        expected = {}
        for s in persons:
            for o in objects:
                labels = sorted((1, 3), key=lambda label: -p[o, label])[:guesses]
                expected[s, o] = labels, [p[s, 0] * p[o, label] if s != o else 0.0 for label in labels]
        ours = zip(*(part[image].tolist() for part in chosen), strict=True)
        ours = {(s, o): (labels, scores) for s, o, labels, scores in ours}
        assert ours.keys() == expected.keys()
        for pair, (labels, scores) in ours.items():
            assert (labels, scores) == (expected[pair][0], pytest.approx(expected[pair][1]))


def test_a_pair_is_found_with_every_class_its_object_may_be(source, batch):
    net = network(source, "d_fine_mini", "pair").eval()
    queries = net.config.num_queries
    with torch.no_grad():
        found = net(batch["pixel_values"]).found
        out = net.detector(batch["pixel_values"])
    p = out.logits[:, -queries:].sigmoid()
    for image in range(2):
        rows = {}
        subjects, others = found.queries[image].T.tolist()
        for row, key in enumerate(zip(subjects, others, strict=True)):
            rows.setdefault(key, []).append(row)
        assert {len(group) for group in rows.values()} == {9}  # digits but 0
        for (subject, other), group in rows.items():
            assert sorted(found.objects[image, group].tolist()) == list(range(1, 10))
            if subject == other:
                assert not found.scores[image, group].any()
                continue
            verbs = found.scores[image, group] / p[image, other, found.objects[image, group], None]
            torch.testing.assert_close(verbs, verbs[:1].expand_as(verbs), rtol=1e-4, atol=0)  # the class says no verb
            for boxes, query in ((found.subject_boxes, subject), (found.object_boxes, other)):
                torch.testing.assert_close(boxes[image, group], out.pred_boxes[image, query - queries].expand(9, 4))


def test_roles_take_one_class_so_that_no_pair_is_found_twice(source, batch):
    net = network(dataclasses.replace(source, roles=range(3)), "d_fine_mini", "pair").eval()
    found = net(batch["pixel_values"]).found
    for image in range(2):
        pairs = [tuple(row) for row in found.queries[image].tolist()]
        assert len(set(pairs)) == len(pairs) == found.objects.shape[1]


def test_a_pair_of_boxes_has_the_verbs_of_all_true_pairs_it_overlaps_with():
    subject, other = torch.tensor([0.3, 0.3, 0.2, 0.4]), torch.tensor([0.6, 0.5, 0.2, 0.2])
    verbs = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    target = PairTarget(
        torch.tensor([1, 1, 9]),
        torch.tensor([True, True, False]),
        verbs,
        torch.stack([subject, subject + 0.01, subject]),
        torch.stack([other, other, torch.zeros(4)]),
    )
    near = torch.tensor([0.02, 0, 0, 0])
    labels = token_labels(
        torch.stack([subject, subject + near, subject]), torch.stack([other, other, other + 0.3]), target
    )
    assert labels.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]


def test_box_features_by_hand():
    one, other = torch.tensor([[0.3, 0.3, 0.2, 0.4]]), torch.tensor([[0.4, 0.5, 0.2, 0.2]])
    features = box_features(one, other)[0]
    assert len(features) == NUM_BOX_FEATURES
    inside = 0.1 * 0.1
    expected = [0.1, 0.2, 0.5, 0.5, 0.5, 1.0, 0.1, 0.1, 0.0, np.log(0.5)]
    expected += [inside / (0.08 + 0.04 - inside), inside / 0.08, inside / 0.04]
    np.testing.assert_allclose(features[8:].numpy(), expected, rtol=1e-4, atol=1e-6)
    assert torch.isfinite(box_features(torch.zeros(1, 4), other)).all()
