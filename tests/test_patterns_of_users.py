"""A pattern of a user: registered in one line, it works wherever the five do."""

import dataclasses
import math
from typing import ClassVar
from unittest import mock

import pytest
import torch
from conftest import tiny_vit
from oracles import masks

import dropkey
from dropkey.cli import main
from dropkey.patterns import PATTERNS, Geometry, GridPattern, Pattern, bits, named_pattern, register


@dataclasses.dataclass(frozen=True)
class Stripe(GridPattern):
    """Drop whole rows of the grid, by itself for every (batch, head, query)."""

    name: ClassVar[str] = "stripe"
    stream: ClassVar[int] = 100

    height: int = 1

    def keep_patches(self, seed, drop_ratio, geometry):
        rows, cols = geometry.grid_size
        queries, heads = bits.all_queries(geometry, seed), bits.heads(geometry, seed)
        num_stripes = -(-rows // self.height)
        dropped = bits.dropped_16(seed, self.stream, drop_ratio, num_stripes, queries, heads)
        return ~dropped.repeat_interleave(self.height, -1)[..., :rows].repeat_interleave(cols, -1)

    def num_draws(self, geometry):
        num_stripes = geometry.grid_size[0] // self.height
        return geometry.batch * geometry.num_heads * geometry.num_queries * num_stripes


@pytest.fixture(autouse=True)
def _registered():
    with mock.patch.dict(PATTERNS):
        register(Stripe)
        yield


def test_a_right_pattern_never_fails_verify_by_chance(images):
    handle = dropkey.apply(tiny_vit(), dropkey.DropKey(0.3, schedule="constant", pattern="stripe"), backend="sdpa")
    for seed in range(100):
        torch.manual_seed(seed)
        handle.verify(images)


class EveryThird(Stripe):
    """Not what the ratio says."""

    def keep_patches(self, seed, drop_ratio, geometry):
        return super().keep_patches(seed, drop_ratio * 0.8, geometry)


def test_a_wrong_pattern_fails_verify(images):
    pattern = EveryThird()
    handle = dropkey.apply(tiny_vit(), dropkey.DropKey(0.5, schedule="constant", pattern=pattern), backend="sdpa")
    with pytest.raises(dropkey.SiteError, match=r"drops 0\.[34]\d+ of its keys, not 0\.5000"):
        handle.verify(images)


GEOMETRIES = [
    (Geometry(2, 3, 9, 17, (4, 4), 1), 1),
    (Geometry(2, 2, 16, 49, (7, 7), 0), 3),
    (Geometry(1, 2, 4, 20, (2, 9), 2), 5),
]


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.7])
@pytest.mark.parametrize(("geometry", "window"), GEOMETRIES)
@pytest.mark.parametrize("name", [*PATTERNS, "stripe"])
def test_tolerance_is_above_the_spread_of_the_share(name, geometry, window, ratio):
    """Over 300 masks: six standard deviations are tolerated, and not ten times as many."""
    pattern = PATTERNS[name](window_size=window) if "window_size" in PATTERNS[name].options() else PATTERNS[name]()
    tolerance = pattern.share_tolerance(ratio, geometry)
    shares = []
    for seed in range(300):
        keep = pattern.keep(torch.tensor(seed), torch.tensor(ratio, dtype=torch.float64), geometry)
        shares.append(1 - keep.double().expand(geometry[:4]).mean().item())
    off = torch.tensor(shares) - ratio
    assert off.abs().max() <= tolerance
    if name != "token":  # exact but for whole keys
        assert 5 < tolerance / off.std().item() < 25


def test_by_name_as_an_object_and_in_settings(images):
    model = tiny_vit()
    with dropkey.apply(model, dropkey.DropKey(0.4, pattern=Stripe(height=2))) as handle:
        assert handle.sites[0].pattern == Stripe(2)
        state = handle.state_dict()
        assert state["regularizer"]["pattern"] == {"name": "stripe", "height": 2}
    with dropkey.apply(model, state) as handle:
        handle.verify(images)
        assert handle.sites[0].pattern == Stripe(2)
    assert dropkey.DropKey(pattern="stripe").pattern == Stripe()


def test_its_mask_is_shared_by_rows_and_prefix_tokens_are_drawn_alone():
    options = {"pattern": "stripe", "grid_size": (4, 5), "num_prefix_tokens": 1, "seed": 3, "drop_ratio": 0.4}
    keep = dropkey.keep_mask(2, 3, 7, 21, **options)
    rows = keep[..., 1:].view(2, 3, 7, 4, 5)
    assert (rows == rows[..., :1]).all()
    assert rows.any()
    assert not rows.all()
    assert (keep[..., :1] == dropkey.keep_mask(2, 3, 7, 1, drop_ratio=0.4, seed=3)).all()


def test_another_grid_is_refused():
    with pytest.raises(dropkey.ArgumentError, match=r"'stripe' needs grid_size"):
        dropkey.keep_mask(1, 1, 9, 9, drop_ratio=0.3, pattern="stripe")


def test_compiled_and_with_gradients():
    q, k, v = (torch.randn(2, 2, 16, 8, requires_grad=True) for _ in range(3))
    out = dropkey.attention(q, k, v, drop_ratio=0.3, pattern="stripe", grid_size=(4, 4), seed=1)
    keep = dropkey.keep_mask(2, 2, 16, 16, drop_ratio=0.3, pattern="stripe", grid_size=(4, 4), seed=1)
    logits = (q @ k.mT * 8**-0.5).masked_fill(~keep, -1e30)
    torch.testing.assert_close(out, logits.softmax(-1) @ v)
    out.sum().backward()
    assert q.grad is not None


@pytest.mark.parametrize("options", [[], ["--window-size", "3"]])
def test_on_the_command_line(options, capsys):
    code = main(["verify", "vit_tiny_patch16_224", "--img-size", "64", "--pattern", "stripe", *options])
    if options:
        assert code == 2
        assert (
            "--window-size acts only with --pattern block or cross, and --pattern is stripe" in capsys.readouterr().err
        )
    else:
        assert code == 0
        assert "drops as it should" in capsys.readouterr().out


def test_bench_takes_patterns_without_a_grid_alone(capsys):
    assert main(["bench", "attention", "--pattern", "stripe"]) == 2
    assert "--pattern must be one of element, column, token, got 'stripe'" in capsys.readouterr().err


def variant(base=Pattern, drop=(), **members):
    """A class of patterns with everything it needs, but for ``drop``."""
    whole = {"name": "mine", "stream": 101, "keep": Stripe.keep_patches, "num_draws": Stripe.num_draws}
    return type("Mine", (base,), {name: member for name, member in {**whole, **members}.items() if name not in drop})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: 3, r"register takes a subclass of dropkey\.Pattern, got 3"),
        (lambda: variant(object), r"register takes a subclass of dropkey\.Pattern"),
        (lambda: variant(drop=["keep"]), "Mine must define keep, see"),
        (lambda: variant(GridPattern, drop=["keep"]), "Mine must define keep_patches"),
        (lambda: variant(drop=["num_draws"]), "Mine must define num_draws"),
        (lambda: variant(drop=["name"]), "Mine must have a name of its own"),
        (lambda: variant(Stripe, drop=["name"]), "Mine must have a name of its own"),
        (lambda: variant(name="token"), "the name 'token' is taken by Token: give Mine another"),
        (lambda: variant(drop=["stream"]), "got None; free: 101"),
        (lambda: variant(stream=0), r"stream number of its own, up to 4294967295, got 0 \(taken by Element\)"),
        (lambda: variant(stream=-1), "got -1"),
        (lambda: variant(stream=2**32), "got 4294967296"),
        (lambda: variant(__init__=lambda self, size: None), "Mine must have a default for each option"),
    ],
)
def test_wrong_classes_are_refused_in_one_line(make, message):
    with pytest.raises(dropkey.ArgumentError, match=message) as error:
        register(make())
    assert "\n" not in str(error.value)
    assert "mine" not in PATTERNS


def test_registering_anew_replaces():
    """As when a cell of a notebook runs again."""
    again = dataclasses.make_dataclass("Stripe", [], bases=(Stripe,), frozen=True, namespace={"name": "stripe"})
    again.__module__, again.__qualname__ = Stripe.__module__, Stripe.__qualname__
    assert register(again) is again
    assert type(named_pattern("stripe")) is again


def test_a_pattern_that_does_not_say_its_draws_works_unverified(images):
    class Every(Pattern):
        name = "every"
        stream = 102

        def keep(self, seed, drop_ratio, geometry):
            return dropkey.Element().keep(seed, drop_ratio, geometry)

    model = tiny_vit()
    handle = dropkey.apply(model, dropkey.DropKey(0.4, pattern=Every()))
    model(images)
    with pytest.raises(dropkey.ArgumentError, match=r"'every' does not say how many independent draws.*num_draws"):
        handle.verify(images)


def test_every_pattern_of_ours_has_its_stream_its_export_and_its_oracle():
    ours = {name: pattern for name, pattern in PATTERNS.items() if pattern is not Stripe}
    assert {name: pattern.stream for name, pattern in ours.items()} == masks.STREAMS
    assert len(set(masks.STREAMS.values())) == len(ours)
    for pattern in ours.values():
        assert getattr(dropkey, pattern.__name__) is pattern
        assert pattern.__name__ in dropkey.__all__
        assert math.isfinite(pattern().num_draws(Geometry(1, 1, 4, 4, (2, 2))))
