"""Keep masks: bit by bit against the oracle, and what each pattern promises."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import masks

import dropkey
from dropkey.ops.cpu import library
from dropkey.patterns import PATTERNS, seed_probability


@pytest.fixture(scope="module", params=["torch", "native"], autouse=True)
def _drawn_by(request):
    """Every test here runs on the masks that torch draws, and on those of the native kernel where there is one."""
    if request.param == "native":
        if library.unavailable() is not None:
            pytest.skip(f"no native masks: {library.unavailable()}")
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "unavailable", lambda: "switched off by this test")
        yield


ALL = list(PATTERNS)
WITHOUT_GRID = [name for name, pattern in PATTERNS.items() if not pattern.needs_grid]
ON_GRID = [name for name in ALL if name not in WITHOUT_GRID]
SEEDS = st.integers(0, 2**64 - 1)
RATIOS = st.one_of(st.floats(0.001, 0.999), st.sampled_from([2**-16, 0.5, 0.9999]))


def share(mask):
    return 1 - mask.double().mean().item()


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(WITHOUT_GRID),
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 35)),
    RATIOS,
    SEEDS,
)
def test_mask_is_the_oracles(pattern, shape, ratio, seed):
    mask = dropkey.keep_mask(*shape, drop_ratio=ratio, pattern=pattern, seed=seed)
    assert mask.dtype == torch.bool
    assert (mask.numpy() == masks.keep_mask(shape, ratio, pattern, seed)).all()


@pytest.mark.parametrize("ratio", [0.3, 0.1, 0.77, 0.5 + 2**-17])
def test_threshold_is_exact(ratio):
    """A million keys: some have bits next to the threshold, so a threshold off by one shows."""
    bits = masks.all_bits16(5, 0, 4, 128, 2048)
    limit = round(ratio * 65536)
    assert limit - 1 in bits
    assert limit in bits
    assert (
        dropkey.keep_mask(2, 2, 128, 2048, drop_ratio=ratio, seed=5).view(4, 128, 2048).numpy() == (bits >= limit)
    ).all()


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(ON_GRID),
    st.sampled_from([1, 3, 5]),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.integers(0, 2),
    st.floats(0.01, 0.95),
    SEEDS,
)
def test_mask_on_a_grid_is_the_oracles(pattern, window, grid, prefix, ratio, seed):
    shape = (2, 2, 2, grid[0] * grid[1] + prefix)
    takes_window = "window_size" in PATTERNS[pattern].options()
    chosen = PATTERNS[pattern](window) if takes_window else pattern
    mask = dropkey.keep_mask(
        *shape, drop_ratio=ratio, pattern=chosen, seed=seed, grid_size=grid, num_prefix_tokens=prefix
    )
    probability = seed_probability(ratio, grid, window, pattern == "cross") if takes_window else None
    assert (mask.numpy() == masks.keep_mask(shape, ratio, pattern, seed, grid, prefix, window, probability)).all()


@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.7])
def test_every_position_of_element_is_an_independent_draw(ratio):
    """A binomial test for each (head, query, key), and for pairs of neighbors along every axis."""
    times = 3000
    mask = dropkey.keep_mask(times, 2, 3, 17, drop_ratio=ratio, seed=1)
    kept = mask.double()
    sigma = math.sqrt(ratio * (1 - ratio) / times)
    assert ((1 - kept.mean(0)) - ratio).abs().max() < 5 * sigma
    centered = (kept - (1 - ratio)) / math.sqrt(ratio * (1 - ratio))
    for axis in range(4):
        length = centered.shape[axis] - 1
        product = centered.narrow(axis, 0, length) * centered.narrow(axis, 1, length)
        assert abs(product.mean()) < 5 / math.sqrt(product.numel())


def test_element_differs_for_every_query_and_head():
    mask = dropkey.keep_mask(3, 4, 5, 64, drop_ratio=0.5, seed=2).flatten(0, 2)
    assert len({tuple(row.tolist()) for row in mask}) == 3 * 4 * 5


def test_column_is_shared_by_queries_only():
    mask = dropkey.keep_mask(3, 4, 5, 64, drop_ratio=0.5, pattern="column", seed=2)
    assert (mask == mask[:, :, :1]).all()
    assert len({tuple(row.tolist()) for row in mask[:, :, 0].flatten(0, 1)}) == 12


@given(st.integers(1, 40), st.floats(0.01, 0.999), SEEDS)
@settings(deadline=None)
def test_token_is_shared_and_keeps_an_exact_count(num_keys, ratio, seed):
    mask = dropkey.keep_mask(3, 4, 5, num_keys, drop_ratio=ratio, pattern="token", seed=seed)
    assert (mask == mask[:, :1, :1]).all()
    assert set(mask.sum(-1).flatten().tolist()) == {max(1, round((1 - ratio) * num_keys))}


def test_token_differs_between_images():
    mask = dropkey.keep_mask(8, 1, 1, 64, drop_ratio=0.5, pattern="token", seed=2).flatten(1)
    assert len({tuple(row.tolist()) for row in mask}) == 8


@pytest.mark.parametrize("grid", [(14, 14), (7, 9), (2, 3), (1, 8)])
@pytest.mark.parametrize("window", [1, 3, 5])
@pytest.mark.parametrize("ratio", [0.01, 0.1, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", ["block", "cross"])
def test_expected_share_of_windows_is_the_ratio(kind, ratio, window, grid):
    """The expectation, computed cell by cell from the windows themselves, within 1% of the ratio."""
    probability = seed_probability(ratio, grid, window, kind == "cross")
    reach, expected = window // 2, 0.0
    for row in range(grid[0]):
        for col in range(grid[1]):
            near = [
                (r, c)
                for r in range(grid[0])
                for c in range(grid[1])
                if abs(r - row) <= reach and abs(c - col) <= reach and (kind == "block" or r == row or c == col)
            ]
            expected += 1 - (1 - probability) ** len(near)
    assert expected / (grid[0] * grid[1]) == pytest.approx(ratio, rel=0.01)


@pytest.mark.parametrize("pattern", [dropkey.Block(3), dropkey.Cross(5)])
def test_share_of_drawn_windows_is_the_ratio(pattern):
    mask = dropkey.keep_mask(
        8, 6, 65, 65, drop_ratio=0.3, pattern=pattern, seed=5, grid_size=(8, 8), num_prefix_tokens=1
    )
    assert share(mask) == pytest.approx(0.3, abs=0.01)
    assert share(mask[..., 0]) == pytest.approx(0.3, abs=0.03)  # the class token, drawn as in element
    corner, center = mask[..., 1], mask[..., 1 + 3 * 8 + 3]
    assert share(corner) < share(center)


def test_a_cross_has_two_arms():
    pattern = dropkey.Cross(3)
    mask = dropkey.keep_mask(4, 4, 50, 49, drop_ratio=0.02, pattern=pattern, seed=5, grid_size=(7, 7))
    dropped = (~mask).sum(-1)
    assert 5 in dropped  # 2 * 3 - 1 cells for a seed in the middle
    assert not (dropped == 9).all()


@pytest.mark.parametrize("pattern", ALL)
def test_mask_does_not_depend_on_the_rest_of_the_batch(pattern):
    """A pure function of seed and position: fewer images or queries is a part of the same mask."""
    rest = {"drop_ratio": 0.4, "pattern": pattern, "seed": 9, "grid_size": (4, 4), "num_prefix_tokens": 1}
    large = dropkey.keep_mask(3, 4, 6, 17, **rest)
    assert (dropkey.keep_mask(2, 4, 5, 17, **rest) == large[:2, :, :5]).all()


@pytest.mark.parametrize("pattern", ALL)
def test_seeds_differ(pattern):
    rest = {"drop_ratio": 0.4, "pattern": pattern, "grid_size": (4, 4)}
    one, other = (dropkey.keep_mask(2, 2, 16, 16, seed=seed, **rest) for seed in (1, 1 + 2**32))
    assert (one != other).any()


def test_ratio_zero_keeps_all():
    assert dropkey.keep_mask(2, 2, 3, 9, drop_ratio=0.0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pattern": "elemnt"}, "did you mean 'element'"),
        ({"pattern": 3}, "unknown pattern 3"),
        ({"drop_ratio": 1.0}, r"drop_ratio must be in \[0, 1\)"),
        ({"drop_ratio": -0.1}, r"drop_ratio must be in \[0, 1\)"),
        ({"drop_ratio": float("nan")}, r"drop_ratio must be in \[0, 1\)"),
        ({"drop_ratio": "much"}, "must be a number"),
        ({"pattern": "block"}, r"needs grid_size=\(rows, cols\)"),
        ({"pattern": "cross", "grid_size": (3, 4)}, "do not make 9 keys"),
        ({"pattern": "cross", "grid_size": (3, 3), "num_prefix_tokens": 1}, "do not make 9 keys"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        dropkey.keep_mask(1, 1, 9, 9, **{"drop_ratio": 0.3, **arguments})
    assert isinstance(caught.value, dropkey.DropKeyError)


@pytest.mark.parametrize("window", [0, 2, -3, 2.5])
def test_bad_windows(window):
    with pytest.raises(dropkey.ArgumentError, match="window_size must be"):
        dropkey.Block(window)
