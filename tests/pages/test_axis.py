"""Ticks where a reader expects them."""

import re

import pytest

from dropkey.pages.axis import whole_step
from dropkey.pages.chart import Line, line_chart


@pytest.mark.parametrize(
    ("unit", "least", "step"),
    [(1, 0.2, 1), (1, 1, 1), (1, 1.1, 2), (1, 3, 5), (1, 12.6, 20), (10, 12.6, 20), (3, 7, 15)],
)
def test_steps_are_round(unit, least, step):
    assert whole_step(unit, least) == step


@pytest.mark.parametrize(
    ("first", "unit", "count", "ticks"),
    [
        (0, 1, 101, [0, 20, 40, 60, 80, 100]),
        (1, 1, 60, [10, 20, 30, 40, 50, 60]),
        (1, 10, 2, [10, 20]),
        (1, 1, 1, [1]),
        (0, 1, 4, [0, 1, 2, 3]),
    ],
)
def test_a_chart_counts_in_round_numbers(first, unit, count, ticks):
    values = [0.5] * count
    svg = line_chart([Line("a", 0, values, values, values, unit)], "epoch", first, title="t")
    across = re.findall(r'text-anchor="middle"[^>]*>(\d+)<', svg)
    assert [int(words) for words in across] == ticks


@pytest.mark.parametrize("count", range(1, 130))
def test_a_narrow_chart_has_a_number_at_least(count):
    values = [0.5] * count
    svg = line_chart([Line("a", 0, values, values, values)], "epoch", 1, title="t", size=(110, 90))
    assert re.search(r'class="tick"[^>]*text-anchor="middle"|text-anchor="middle"[^>]*>\d+<', svg)
