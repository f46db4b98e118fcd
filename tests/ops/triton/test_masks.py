"""The mask that the kernels use, read off them bit for bit."""

import pytest
import torch

import dropkey

PATTERNS = {
    "element": {},
    "column": {},
    "token": {},
    "block": {"pattern": dropkey.Block(3), "grid_size": (5, 9), "num_prefix_tokens": 6},
    "cross": {"pattern": dropkey.Cross(5), "grid_size": (3, 15), "num_prefix_tokens": 6},
}
SHAPE = (2, 2, 19, 51)  # batch, heads, queries, keys


def seen_forward(interpreter, **draw):
    """Return where the forward kernel gives weight: its output, with equal logits and the identity as values."""
    batch, heads, queries, keys = SHAPE
    zeros = torch.zeros(batch, heads, queries, 16), torch.zeros(batch, heads, keys, 16)
    identity = torch.eye(keys).expand(batch, heads, keys, keys)
    return interpreter("output", *zeros, identity, **draw) > 0


def seen_key_value(interpreter, **draw):
    """Return where the kernel of keys and values gives weight: the gradient of the values is that, transposed."""
    batch, heads, queries, keys = SHAPE
    zeros = torch.zeros(batch, heads, queries, 16), torch.zeros(batch, heads, keys, 16)
    value, grad_out = torch.zeros(batch, heads, keys, queries), torch.eye(queries).expand(batch, heads, -1, -1)
    return (interpreter("attend", *zeros, value, grad_out, **draw)[3] > 0).mT


def seen_query(interpreter, **draw):
    """Return where the kernel of the queries gives weight: with zero keys' scores, d query is a sum over kept keys.

    Logits are 0; values and output gradient make d logits of key j equal to its weight times (v_j - mean of v); keys
    are the identity, so the gradient of the query is d logits itself.
    """
    batch, heads, queries, keys = SHAPE
    query, key = torch.zeros(batch, heads, queries, keys), torch.eye(keys).expand(batch, heads, keys, keys)
    value = (2.0 ** torch.arange(keys)).remainder(1009)[:, None].expand(batch, heads, keys, 1).contiguous()
    return interpreter("attend", query, key, value, torch.ones(batch, heads, queries, 1), **draw)[1].abs() > 1e-7


def assert_exported(interpreter, pattern, seen):
    draw = {"pattern": pattern, "drop_ratio": 0.35, "seed": -1234567890123456789, **PATTERNS[pattern]}
    assert torch.equal(seen(interpreter, **draw), dropkey.keep_mask(*SHAPE, **draw))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_forward_kernel_uses_the_exported_mask(interpreter, pattern):
    assert_exported(interpreter, pattern, seen_forward)


@pytest.mark.parametrize("drop_ratio", [0.5, 0.03, 0.999])
@pytest.mark.parametrize("keys", [1, 3, 127, 128, 300])
def test_tokens_of_any_number(interpreter, keys, drop_ratio):
    kept = interpreter("kept_tokens", 3, 2, keys, drop_ratio, 77)
    want = dropkey.keep_mask(3, 2, 1, keys, drop_ratio=drop_ratio, pattern="token", seed=77)[:, 0, 0]
    assert torch.equal(kept, want)


def test_rows_of_kept_tokens(interpreter):
    rows = interpreter("kept_rows", 3, 2, 100, 0.3, 77)
    keep = dropkey.keep_mask(3, 2, 1, 100, drop_ratio=0.3, pattern="token", seed=77)[:, 0, 0]
    assert rows.shape == (3, 70)
    assert rows.flatten().tolist() == keep.flatten().nonzero().flatten().tolist()


@pytest.mark.parametrize("seen", [seen_key_value, seen_query])
def test_the_backward_kernels_use_the_exported_mask(interpreter, seen):
    assert_exported(interpreter, "element", seen)


@pytest.mark.slow
@pytest.mark.parametrize("seen", [seen_key_value, seen_query])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_kernel_uses_the_exported_mask(interpreter, pattern, seen):
    assert_exported(interpreter, pattern, seen)


@pytest.mark.parametrize("drop_ratio", [2**-16, 0.999])
def test_extreme_ratios(interpreter, drop_ratio):
    keep = dropkey.keep_mask(*SHAPE, drop_ratio=drop_ratio, seed=4)
    lost = ~keep.any(-1, keepdim=True)  # a row that lost all its keys sees them all
    assert torch.equal(seen_forward(interpreter, drop_ratio=drop_ratio, seed=4), keep | lost)


@pytest.mark.parametrize("pattern", ["element", "column"])
def test_tiles_make_no_difference(interpreter, tile, pattern):
    before = seen_forward(interpreter, drop_ratio=0.5, seed=9, pattern=pattern)
    tile(16, 64, 4, 1)
    assert torch.equal(seen_forward(interpreter, drop_ratio=0.5, seed=9, pattern=pattern), before)


FAULTS = {
    "another stream": ("logits.py", "queries, head, tl.full((), 0,", "queries, head, tl.full((), 1,"),
    "heads alike": ("logits.py", "calls, queries, head, tl", "calls, queries, head * 0, tl"),
    "off by one": ("philox.py", "(word << 16) >= limit", "(word << 16) > limit"),
    "ten rounds": ("philox.py", "NUM_ROUNDS = tl.constexpr(7)", "NUM_ROUNDS = tl.constexpr(10)"),
    "another order of keys": ("philox.py", "keep.shape[1] // 4, 4, 2, 4)", "keep.shape[1] // 4, 4, 4, 2)"),
    "half a seed": ("philox.py", "(seed.to(tl.uint64) >> 32)", "seed"),
}  # fmt: skip


def assert_seen(interpreter, plant, fault):
    draw = {"drop_ratio": 0.5, "seed": 2**40 + 1}
    if fault == "off by one":  # one drawn number in 65536 is the threshold itself: choose a ratio of which one is drawn
        draw["drop_ratio"] = _a_drawn_number(draw["seed"]) / 65536
    keep = dropkey.keep_mask(*SHAPE, **draw)
    assert torch.equal(seen_forward(interpreter, **draw), keep)
    plant(*FAULTS[fault])
    assert not torch.equal(seen_forward(interpreter, **draw), keep)


@pytest.mark.parametrize("fault", [*FAULTS][:3])
def test_planted_faults_are_seen(interpreter, plant, fault):
    assert_seen(interpreter, plant, fault)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [*FAULTS][3:])
def test_more_planted_faults_are_seen(interpreter, plant, fault):
    assert_seen(interpreter, plant, fault)


def _a_drawn_number(seed: int) -> int:
    """Return a low half that is drawn for one of the keys: the one of key 0, found by bisection of the ratio."""
    low, high = 1, 65535
    while low < high:
        middle = (low + high) // 2
        is_kept = bool(dropkey.keep_mask(1, 1, 1, 1, drop_ratio=middle / 65536, seed=seed))
        low, high = (middle + 1, high) if is_kept else (low, middle)
    return low - 1
