"""Layouts: every element lands where the names of the axes say, and comes back."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dropkey.adapters.layout import LAYOUTS, fold, unfold

sizes = st.fixed_dictionaries({axis: st.integers(1, 3) for axis in "bhwnd"})


def shape_of(layout, size):
    axes = [size["b"] * size["h"] if axis == "g" else size[axis] for axis in layout]
    return (*axes, size["n"], size["d"])


def place(layout, size, batch, window, head):
    """The index into the axes of a layout where (batch, window, head) is kept."""
    known = {"b": batch, "w": window, "h": head, "g": batch * size["h"] + head}
    return tuple(known[axis] for axis in layout)


@pytest.mark.parametrize("layout", LAYOUTS)
@given(size=sizes)
def test_fold(layout, size):
    if "h" not in layout and "g" not in layout:
        size = {**size, "h": 1}
    if "w" not in layout:
        size = {**size, "w": 1}
    tensor = torch.randn(*shape_of(layout, size))
    folded = fold(tensor, layout, size["h"])
    assert folded.shape == (size["b"] * size["w"], size["h"], size["n"], size["d"])
    for b, w, h in itertools.product(range(size["b"]), range(size["w"]), range(size["h"])):
        assert torch.equal(folded[b * size["w"] + w, h], tensor[place(layout, size, b, w, h)])
    assert torch.equal(unfold(folded, layout, size["w"]), tensor)
