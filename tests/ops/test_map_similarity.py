"""The similarity of consecutive attention maps, against the NumPy oracle."""

import numpy as np
import pytest
import torch
from oracles import reattention as oracle

import dropkey
from dropkey.ops.map_similarity import map_similarity


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
