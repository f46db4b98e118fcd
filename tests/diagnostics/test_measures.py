"""Every measure against its formula, written out in NumPy's float64, on maps that were captured."""

import itertools
import math

import numpy as np
import pytest
import torch
from conftest import tiny_vit

import dropkey
from dropkey import diagnostics as measures

LAYERS, BATCH, HEADS, ROWS, COLS, PREFIX = 3, 2, 3, 4, 8, 1
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def captured():
    """Maps of a ViT with sharp weights on images that are not square."""
    model = tiny_vit(img_size=(16, 32)).eval()
    for block in model.blocks:
        block.attn.qkv.weight.data.mul_(6)
    with torch.no_grad(), dropkey.capture(model) as maps:
        model(torch.randn(BATCH, 3, 16, 32))
    return list(maps.values())


def numpy(tensor):
    return tensor.double().numpy()


def cosine(one, other):
    return (one * other).sum() / math.sqrt((one**2).sum() * (other**2).sum())


def heads(maps):
    """Yield (place, map) of every image and head of the first block."""
    for image in range(BATCH):
        for head in range(HEADS):
            yield (image, head), numpy(maps[0])[image, head]


def test_entropy_and_peak(captured):
    entropy, peak = measures.entropy(captured[0]), measures.peak(captured[0])
    for place, attn in heads(captured):
        nats = [-sum(w * math.log(w) for w in row if w > 0) for row in attn]
        np.testing.assert_allclose(entropy[place], np.mean(nats), **CLOSE)
        np.testing.assert_allclose(peak[place], np.mean([max(row) for row in attn]), **CLOSE)
    assert entropy.std() > 0.01
    assert torch.isnan(measures.entropy(captured[0] - 0.1)).all()  # negative weights have none
    assert measures.entropy(torch.eye(5).expand(1, 1, 5, 5)).item() == 0  # dropped keys weigh nothing


def test_distance(captured):
    distance = measures.attention_distance(captured[0], (ROWS, COLS), PREFIX)
    places = [(row, col) for row in range(ROWS) for col in range(COLS)]
    for place, attn in heads(captured):
        patches = attn[PREFIX:, PREFIX:]
        away = [
            sum(w * math.dist(here, there) for w, there in zip(row, places, strict=True)) / row.sum()
            for row, here in zip(patches, places, strict=True)
        ]
        np.testing.assert_allclose(distance[place], np.mean(away), **CLOSE)
    assert (distance <= math.hypot(ROWS - 1, COLS - 1)).all()
    with pytest.raises(dropkey.ArgumentError, match="a grid of 8 x 8 and 1 prefix tokens has maps of 65 x 65, got"):
        measures.attention_distance(captured[0], (8, 8), PREFIX)
    blind = torch.eye(3).expand(1, 1, 3, 3).clone()
    blind[..., 1, :] = torch.tensor([1.0, 0.0, 0.0])  # sees the prefix token alone
    assert measures.attention_distance(blind, (1, 2), 1).item() == 0


def test_head_similarity(captured):
    similarity = measures.head_similarity(captured[0])
    attn = numpy(captured[0])
    for image, head in np.ndindex(BATCH, HEADS):
        others = [cosine(attn[image, head], attn[image, other]) for other in range(HEADS) if other != head]
        np.testing.assert_allclose(similarity[image, head], np.mean(others), **CLOSE)
    assert torch.isnan(measures.head_similarity(captured[0][:, :1])).all()


def test_effective_rank(captured):
    rank = measures.effective_rank(captured[0])
    for place, attn in heads(captured):
        values = np.linalg.svd(attn, compute_uv=False)
        shares = values / values.sum()
        np.testing.assert_allclose(rank[place], np.exp(-(shares * np.log(shares)).sum()), **CLOSE)
    uniform = torch.full((1, 1, 40, 40), 1 / 40)
    np.testing.assert_allclose(measures.effective_rank(uniform).item(), 1, **CLOSE)


def test_cross_layer_similarity_of_all_pairs(captured):
    similarity = measures.cross_layer_similarity(captured)
    each = [numpy(attn) for attn in captured]
    for p, q in np.ndindex(LAYERS, LAYERS):
        columns = [
            cosine(each[p][image, head, :, key], each[q][image, head, :, key])
            for image, head, key in np.ndindex(BATCH, HEADS, each[0].shape[-1])
        ]
        np.testing.assert_allclose(similarity[p, q], np.mean(columns), **CLOSE)
    with pytest.raises(dropkey.ArgumentError, match=r"got shapes \(2, 3, 33, 5\), \(2, 3, 33, 33\)"):
        measures.cross_layer_similarity([captured[0], captured[0][..., :5]])
    with pytest.raises(dropkey.ArgumentError, match="of one shape, got none"):
        measures.cross_layer_similarity([])


def test_feature_similarity():
    features = [torch.randn(BATCH, 5, 7) for _ in range(LAYERS)]
    similarity = measures.feature_similarity(features)
    for p, q in np.ndindex(LAYERS, LAYERS):
        tokens = [cosine(numpy(features[p])[at], numpy(features[q])[at]) for at in np.ndindex(BATCH, 5)]
        np.testing.assert_allclose(similarity[p, q], np.mean(tokens), **CLOSE)


def test_prefix_and_sink(captured):
    value = torch.randn(BATCH, HEADS, captured[0].shape[-1], 5)
    share, sink = measures.prefix_share(captured[0], PREFIX), measures.strongest_sink(captured[0], value)
    for place, attn in heads(captured):
        np.testing.assert_allclose(share[place], np.mean(attn[:, :PREFIX].sum(1)), **CLOSE)
        weight = attn.mean(0)
        assert sink.token[place] == weight.argmax()
        np.testing.assert_allclose(sink.share[place], weight.max(), **CLOSE)
        norms = [math.sqrt((vector**2).sum()) for vector in numpy(value)[place]]
        np.testing.assert_allclose(sink.value_norm[place], norms[weight.argmax()] / np.mean(norms), **CLOSE)
    assert measures.strongest_sink(captured[0]).value_norm is None


def test_rollout(captured):
    rollout = measures.rollout(captured)
    for image in range(BATCH):
        want = np.eye(captured[0].shape[-1])
        for attn in captured:
            mixed = numpy(attn)[image].mean(0) + np.eye(len(want))
            want = (mixed / mixed.sum(1, keepdims=True)) @ want
        np.testing.assert_allclose(rollout[image], want, **CLOSE)
    np.testing.assert_allclose(rollout.sum(-1), 1, **CLOSE)
    with pytest.raises(dropkey.ArgumentError, match="all over the same tokens, got 33 x 5"):
        measures.rollout([captured[0][..., :5]])


def test_class_rollout(captured):
    gradients = [torch.randn_like(attn) for attn in captured]
    rollout = measures.class_rollout(captured, gradients)
    for image in range(BATCH):
        want = np.eye(captured[0].shape[-1])
        for attn, gradient in zip(captured, gradients, strict=True):
            want = want + np.maximum(numpy(attn)[image] * numpy(gradient)[image], 0).mean(0) @ want
        np.testing.assert_allclose(rollout[image], want, **CLOSE)
    with pytest.raises(dropkey.ArgumentError, match="3 maps and 2 gradients are not of the same shapes"):
        measures.class_rollout(captured, gradients[1:])


def test_similar_blocks_by_hand():
    """One head, two queries; columns of the second map are those of the first, of the third one in two is another."""
    first = torch.tensor([[1.0, 0.0, 2.0, 1.0], [1.0, 1.0, 1.0, 0.0]])
    third = first.clone()
    third[:, 1], third[:, 3] = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    maps_of_blocks = [one[None, None] for one in (first, 3 * first, third)]
    assert measures.similar_blocks(maps_of_blocks) == [True, False]
    assert measures.similar_blocks(maps_of_blocks, share=0.4) == [True, True]
    assert measures.similar_blocks([m.mT for m in maps_of_blocks], threshold=0.99, share=0.4) == [
        True,
        False,
    ]  # not of rows


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.95])
def test_similar_blocks_count_columns(threshold):
    some = list(torch.randn(4, 2, 3, 4, 5, dtype=torch.float64).softmax(-1).unbind(0))
    arrays = [m.numpy() for m in some]
    for share in (0.1, 0.3, 0.6):
        want = []
        for one, other in itertools.pairwise(arrays):
            pairs = [(one[b, h, :, t], other[b, h, :, t]) for b in range(2) for h in range(3) for t in range(5)]
            alike = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) > threshold for x, y in pairs]
            want.append(np.mean(alike) > share)
        assert measures.similar_blocks(some, threshold, share) == want
