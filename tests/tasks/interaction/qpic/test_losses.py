"""QPIC's matching and losses against float64 loops, and what must hold at the edges."""

import numpy as np
import pytest
import torch
from oracles import qpic as oracle

from dropkey.data.paired_images import PairTarget
from dropkey.tasks.interaction.qpic.losses import box_loss, object_loss, qpic_loss, verb_labels, verb_loss
from dropkey.tasks.interaction.qpic.matcher import assign, matching_cost
from dropkey.tasks.interaction.qpic.pair_output import PairOutput

QUERIES, CLASSES, VERBS = 5, 3, 4


def boxes(generator, *shape):
    return torch.rand(*shape, 4, generator=generator) * 0.5 + 0.2


def output(seed=0, images=2, classes=CLASSES):
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, QUERIES, classes + 1, generator=g)
    verbs = torch.randn(images, QUERIES, VERBS, generator=g)
    parts = logits, logits.softmax(-1)[..., :-1], verbs, boxes(g, images, QUERIES), boxes(g, images, QUERIES)
    return PairOutput(*(part.requires_grad_() if part.is_leaf else part for part in parts))


def target(seed, pairs, missing=()):
    g = torch.Generator().manual_seed(100 + seed)
    there = torch.ones(pairs, dtype=torch.bool)
    there[list(missing)] = False
    verbs = torch.randint(0, 2, (pairs, VERBS), generator=g).float()
    verbs[:, 0] = 1
    classes = torch.randint(0, CLASSES, (pairs,), generator=g).where(there, CLASSES)
    return PairTarget(classes, there, verbs, boxes(g, pairs), boxes(g, pairs) * there[:, None])


def plain(out, image):
    """Queries of an image as the oracle takes them."""
    rows = zip(
        out.object_probabilities[image], out.verb_logits[image], out.subject_boxes[image], out.object_boxes[image],
        strict=True,
    )  # fmt: skip
    names = ("object_probabilities", "verb_logits", "subject", "object")
    return [dict(zip(names, (part.detach().double().numpy() for part in row), strict=True)) for row in rows]


def plain_pairs(wanted):
    return [
        {
            "object": int(wanted.objects[i]),
            "verbs": wanted.verbs[i].numpy(),
            "subject": wanted.subject_boxes[i].double().numpy(),
            "box": wanted.object_boxes[i].double().numpy() if wanted.has_object[i] else None,
        }
        for i in range(len(wanted.objects))
    ]


def test_cost():
    out, wanted = output(), target(0, 3)
    ours = matching_cost(out, 1, wanted).detach()
    expected = [[oracle.cost(query, pair) for pair in plain_pairs(wanted)] for query in plain(out, 1)]
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_cost_without_an_object_looks_at_the_subject_alone():
    out, wanted = output(classes=CLASSES + 1), target(0, 3, missing=[1])
    cost = matching_cost(out, 0, wanted)
    moved = wanted._replace(object_boxes=wanted.object_boxes + torch.tensor([[0.0], [0.3], [0.0]]))
    torch.testing.assert_close(matching_cost(out, 0, moved), cost)
    expected = [oracle.cost(query, plain_pairs(wanted)[1]) for query in plain(out, 0)]
    np.testing.assert_allclose(cost[:, 1].detach().numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_assignment_is_the_cheapest_of_all(seed):
    out, wanted = output(seed), [target(seed, 3), target(seed + 1, 0)]
    assignments = assign(out, wanted)
    queries, pairs = assignments[0]
    found = dict(zip(pairs.tolist(), queries.tolist(), strict=True))
    assert tuple(found[pair] for pair in range(3)) == oracle.best_assignment(plain(out, 0), plain_pairs(wanted[0]))
    assert [len(part) for part in assignments[1]] == [0, 0]


def test_more_pairs_than_queries_leave_some_out():
    queries, pairs = assign(output(images=1), [target(0, 9)])[0]
    assert len(queries) == len(set(pairs.tolist())) == QUERIES


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_verb_loss(scale):
    """Also where sigmoids of float32 are 0 or 1."""
    g = torch.Generator().manual_seed(0)
    logits = (torch.randn(2, QUERIES, VERBS, generator=g) * scale).requires_grad_()
    labels = torch.randint(0, 2, logits.shape, generator=g).float()
    loss = verb_loss(logits, labels)
    loss.backward()
    assert loss.item() == pytest.approx(oracle.focal(logits.detach().double().numpy(), labels.numpy()), rel=1e-5)
    assert torch.isfinite(logits.grad).all()


def test_verb_loss_without_any_pair_counts_the_negatives():
    logits = torch.zeros(1, QUERIES, VERBS)
    assert verb_loss(logits, torch.zeros_like(logits)).item() == pytest.approx(QUERIES * VERBS * 0.25 * np.log(2))


def test_verb_labels_are_of_the_queries_that_are_to_find_a_pair():
    wanted = [target(0, 2), target(1, 1)]
    assignments = [(torch.tensor([4, 1]), torch.tensor([1, 0])), (torch.tensor([2]), torch.tensor([0]))]
    labels = verb_labels(torch.zeros(2, QUERIES, VERBS), wanted, assignments)
    assert torch.equal(labels[0, 4], wanted[0].verbs[1])
    assert torch.equal(labels[1, 2], wanted[1].verbs[0])
    assert labels.sum() == wanted[0].verbs.sum() + wanted[1].verbs.sum()


def test_object_loss_weighs_no_pair_by_a_tenth():
    out, wanted = output(images=1, classes=CLASSES + 1), [target(0, 2, missing=[0])]
    loss = object_loss(out.object_logits, wanted, [(torch.tensor([3, 0]), torch.tensor([0, 1]))])
    labels = [int(wanted[0].objects[1]), CLASSES + 1, CLASSES + 1, CLASSES, CLASSES + 1]  # CLASSES is "no object"
    weights = [1.0] * (CLASSES + 1) + [0.1]
    expected = oracle.cross_entropy(out.object_logits[0].detach().double().numpy(), labels, weights)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_box_loss():
    out, wanted = output(images=1), [target(0, 2, missing=[1])]
    assignments = [(torch.tensor([3, 0]), torch.tensor([0, 1]))]
    count = torch.tensor(2.0)
    queries, pairs = plain(out, 0), plain_pairs(wanted[0])
    each = [
        2.5 * oracle.l1(queries[query]["object"], pairs[pair]["box"])
        + 1
        - oracle.giou(queries[query]["object"], pairs[pair]["box"])
        for query, pair in ((3, 0),)
    ]
    loss = box_loss(out.object_boxes, [wanted[0].object_boxes], assignments, count, [wanted[0].has_object])
    assert loss.item() == pytest.approx(sum(each) / 2, rel=1e-5)


def test_the_whole_loss_sums_layers_and_falls_under_gradient_descent():
    wanted = [target(0, 3, missing=[2]), target(1, 0)]
    one, other = output(0, classes=CLASSES + 1), output(1, classes=CLASSES + 1)
    total = qpic_loss([one, other], wanted)
    torch.testing.assert_close(total, qpic_loss([one], wanted) + qpic_loss([other], wanted))
    parameters = [one.object_logits, one.verb_logits, one.subject_boxes, one.object_boxes]
    optimizer = torch.optim.Adam(parameters, lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        now = PairOutput(parameters[0], parameters[0].softmax(-1)[..., :-1], *parameters[1:])
        loss = qpic_loss([now], wanted)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.35


def test_batches_without_any_pair_have_a_loss():
    out = output(images=1)
    loss = qpic_loss([out], [target(0, 0)])
    loss.backward()
    assert torch.isfinite(loss)
    assert out.subject_boxes.grad is None or (out.subject_boxes.grad == 0).all()
