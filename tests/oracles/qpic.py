"""QPIC's costs and losses a second time, for one image, pair by pair in float64."""

import itertools

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def corners(box):
    x, y, w, h = box
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def giou(box, other):
    a, b = corners(box), corners(other)
    inside = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = box[2] * box[3] + other[2] * other[3] - inside
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return inside / union - (hull - union) / hull


def l1(box, other):
    return np.abs(np.subtract(box, other)).sum()


def cost(query, pair):
    """``query``: object_probabilities, verb_logits, subject, object; ``pair``: object, verbs, subject, box or None."""
    p = sigmoid(query["verb_logits"])
    done = [p[v] for v in range(len(p)) if pair["verbs"][v]]
    others = [1 - p[v] for v in range(len(p)) if not pair["verbs"][v]]
    verb = -(np.mean(done) + (np.mean(others) if others else 0)) / 2
    subject_l1, subject_giou = l1(query["subject"], pair["subject"]), giou(query["subject"], pair["subject"])
    if pair["box"] is None:
        return -query["object_probabilities"][pair["object"]] + verb + 2.5 * subject_l1 - subject_giou
    object_l1, object_giou = l1(query["object"], pair["box"]), giou(query["object"], pair["box"])
    return (
        -query["object_probabilities"][pair["object"]]
        + verb
        + 2.5 * max(subject_l1, object_l1)
        + max(-subject_giou, -object_giou)
    )


def best_assignment(queries, pairs):
    """All of them, the cheapest: queries in the order of the pairs."""
    costs = [[cost(query, pair) for query in queries] for pair in pairs]
    orders = itertools.permutations(range(len(queries)), len(pairs))
    return min(orders, key=lambda order: sum(costs[pair][query] for pair, query in enumerate(order)))


def focal(logits, labels):
    """Over all queries and verbs, divided by the number of positive labels."""
    total = 0.0
    for logit, label in zip(np.ravel(logits), np.ravel(labels), strict=True):
        sign = 1 if label else -1
        total += sigmoid(-sign * logit) ** 2 * np.logaddexp(0, -sign * logit)
    return total / max(1, np.sum(labels))


def cross_entropy(logits, labels, weights):
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        total -= weights[label] * (row[label] - np.log(np.exp(row).sum()))
    return total / sum(weights[label] for label in labels)
