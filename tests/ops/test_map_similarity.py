"""The similarity of consecutive attention maps, against the NumPy oracle."""

import itertools

import numpy as np
import pytest
import torch
from oracles import reattention as oracle

import dropkey
from dropkey.ops.map_similarity import map_similarity, similar_blocks


def maps(count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(count, 2, 3, 4, 5, generator=generator, dtype=torch.float64).softmax(-1).unbind(0))


@pytest.mark.parametrize("num_pairs", [None, 1, 2, 3])
def test_values(num_pairs):
    want = oracle.similarity([m.numpy() for m in maps()], num_pairs or 3)
    np.testing.assert_allclose(map_similarity(maps(), num_pairs).item(), want, rtol=1e-10)


def test_a_step_against_the_gradient_makes_maps_differ_more():
    leaves = [m.requires_grad_() for m in maps()]
    before = map_similarity(leaves)
    before.backward()
    stepped = [leaf - 0.1 * leaf.grad / leaf.grad.norm() for leaf in leaves]
    assert map_similarity(stepped) < before


@pytest.mark.parametrize(("count", "num_pairs"), [(1, None), (4, 4), (4, 0)])
def test_too_few_maps(count, num_pairs):
    with pytest.raises(dropkey.DropKeyError, match="pairs of consecutive maps need"):
        map_similarity(maps(count), num_pairs)


def test_similar_blocks_by_hand():
    """One head, two queries; columns of the second map are those of the first, of the third one in two is another."""
    first = torch.tensor([[1.0, 0.0, 2.0, 1.0], [1.0, 1.0, 1.0, 0.0]])
    third = first.clone()
    third[:, 1], third[:, 3] = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    maps_of_blocks = [one[None, None] for one in (first, 3 * first, third)]
    assert similar_blocks(maps_of_blocks) == [True, False]
    assert similar_blocks(maps_of_blocks, share=0.4) == [True, True]
    assert similar_blocks([m.mT for m in maps_of_blocks], threshold=0.99, share=0.4) == [True, False]  # not of rows


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.95])
def test_similar_blocks_count_columns(threshold):
    arrays = [m.numpy() for m in maps()]
    for share in (0.1, 0.3, 0.6):
        want = []
        for one, other in itertools.pairwise(arrays):
            pairs = [(one[b, h, :, t], other[b, h, :, t]) for b in range(2) for h in range(3) for t in range(5)]
            alike = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) > threshold for x, y in pairs]
            want.append(np.mean(alike) > share)
        assert similar_blocks(maps(), threshold, share) == want
