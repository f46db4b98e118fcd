"""Means, intervals and tests over seeds against closed forms, published tables and plain simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropkey.experiments.statistics import holm, mean_and_sd, mean_interval, paired_difference

# Quantiles of Student's t at 0.975, from printed tables.
T_975 = {2: 12.7062, 3: 4.3027, 4: 3.1824, 5: 2.7764, 10: 2.2622}


@pytest.mark.parametrize("pairs", T_975)
def test_intervals_are_those_of_the_printed_table(pairs):
    rng = np.random.default_rng(pairs)
    values, others = rng.normal(0.8, 0.02, pairs), rng.normal(0.78, 0.02, pairs)
    for data, (low, high) in [
        (values, mean_interval(list(values))),
        (values - others, (lambda d: (d.low, d.high))(paired_difference(list(values), list(others)))),
    ]:
        half = T_975[pairs] * data.std(ddof=1) / math.sqrt(pairs)
        assert low == pytest.approx(data.mean() - half, abs=1e-4 * half)
        assert high == pytest.approx(data.mean() + half, abs=1e-4 * half)


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        base = rng.normal(size=4)
        difference = paired_difference(base + rng.normal(0.3, 0.5, size=4), base)
        covered += difference.low <= 0.3 <= difference.high
    assert 0.935 < covered / 2000 < 0.965


def test_p_values_have_their_closed_forms():
    """With 1 degree of freedom t is Cauchy, with 2 its distribution is algebraic."""
    two = paired_difference([0.5, 0.7], [0.4, 0.4])
    t = 0.2 / (np.std([0.1, 0.3], ddof=1) / math.sqrt(2))
    assert two.p_value == pytest.approx(1 - 2 / math.pi * math.atan(t))
    three = paired_difference([0.5, 0.7, 0.9], [0.4, 0.4, 0.2])
    t = np.mean([0.1, 0.3, 0.7]) / (np.std([0.1, 0.3, 0.7], ddof=1) / math.sqrt(3))
    assert three.p_value == pytest.approx(1 - t / math.sqrt(2 + t**2))


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=6), st.floats(-1, 1))
def test_sides_are_symmetric_and_the_interval_agrees_with_the_test(values, shift):
    others = [0.5 * value + shift * place for place, value in enumerate(values)]
    one, other = paired_difference(values, others), paired_difference(others, values)
    assert one.mean == pytest.approx(-other.mean)
    if math.isnan(one.p_value):
        assert math.isnan(other.p_value)
        return
    assert one.p_value == pytest.approx(other.p_value, rel=1e-6, abs=1e-12)
    assert one.seeds_needed == other.seeds_needed
    if abs(one.p_value - 0.05) > 1e-6:
        assert (one.p_value < 0.05) == (one.low > 0 or one.high < 0)


def test_what_has_no_spread_is_not_tested():
    single = paired_difference([0.9], [0.8])
    same = paired_difference([0.9, 0.8, 0.7], [0.8, 0.7, 0.6])  # in floating point the differences are not quite equal
    for difference in (single, same):
        assert difference.mean == pytest.approx(0.1)
        assert all(map(math.isnan, (difference.low, difference.high, difference.p_value, difference.seeds_needed)))
    equal = paired_difference([0.9, 0.8], [0.9, 0.8])
    assert (equal.mean, equal.low, equal.high, equal.p_value, equal.seeds_needed) == (0, 0, 0, 1, math.inf)
    assert math.isnan(mean_and_sd([1.0])[1])
    assert all(map(math.isnan, mean_interval([1.0])))


def differing(mean, sd=1.0, pairs=6):
    """Return values and others whose differences have exactly this mean and standard deviation."""
    raw = np.arange(pairs, dtype=float)
    raw = (raw - raw.mean()) / raw.std(ddof=1)
    base = np.linspace(0.2, 0.9, pairs)
    return list(base + mean + sd * raw), list(base)


# As G*Power, R's power.t.test and Cohen's tables give them: two-sided, alpha 0.05, power 0.8.
@pytest.mark.parametrize(
    ("effect", "pairs"), [(0.2, 199), (0.3, 90), (0.5, 34), (0.8, 15), (1.0, 10), (1.2, 8), (1.5, 6)]
)
def test_seeds_needed_are_those_of_published_tables(effect, pairs):
    for sign in (1, -1):
        assert paired_difference(*differing(sign * 0.01 * effect, 0.01)).seeds_needed == pairs


@pytest.mark.parametrize("effect", [0.7, 2.0, 4.0])
def test_seeds_needed_find_the_effect_in_four_of_five_simulations_and_one_less_does_not(effect):
    needed = int(paired_difference(*differing(effect)).seeds_needed)
    rng = np.random.default_rng(5)

    def found(pairs):
        data = rng.normal(effect, 1, (200_000, pairs))
        t = data.mean(1) / (data.std(1, ddof=1) / math.sqrt(pairs))
        return (np.abs(t) > critical(pairs)).mean()

    assert found(needed) > 0.8 - 0.003
    assert needed == 2 or found(needed - 1) < 0.8 + 0.003


def critical(pairs):
    """Return the 0.975 quantile of Student's t by simulation-free inversion of its density."""
    freedom = pairs - 1
    grid = np.linspace(0, 400, 4_000_001)
    density = (1 + grid**2 / freedom) ** (-(freedom + 1) / 2)
    density *= math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    return float(grid[np.searchsorted(np.cumsum(density) * (grid[1] - grid[0]) - density[0] * grid[1] / 2, 0.475)])


def test_too_small_an_effect_needs_no_number_of_seeds():
    assert paired_difference(*differing(1e-6)).seeds_needed == math.inf


def test_holm_by_hand():
    """Holm's own procedure, step by step: reject the smallest while it is at most alpha over those that are left."""
    p_values = [0.011, 0.02, 0.024, 0.6, 0.004]
    corrected = holm(p_values)
    assert corrected == pytest.approx([0.044, 0.06, 0.06, 0.6, 0.02])
    for alpha in np.linspace(0.001, 0.999, 333):
        rejected, left = set(), sorted(p_values)
        for rank, p_value in enumerate(left):
            if p_value > alpha / (len(left) - rank):
                break
            rejected.add(p_value)
        assert {p for p, c in zip(p_values, corrected, strict=True) if c <= alpha} == rejected
    assert holm([]) == []
    assert holm([0.03]) == [0.03]


def test_holm_counts_an_arm_without_a_test():
    first, nothing, last = holm([0.03, math.nan, 0.9])
    assert (first, last) == (pytest.approx(0.09), 1.0)
    assert math.isnan(nothing)


def test_holm_keeps_the_chance_of_any_false_alarm():
    rng = np.random.default_rng(1)
    alarms = np.mean([min(holm(list(row))) < 0.05 for row in rng.random((4000, 5))])
    assert 0.035 < alarms < 0.06
