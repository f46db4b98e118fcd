"""The benchmark of drawing bodies, at a tiny size."""

import re

import pytest

pytestmark = pytest.mark.slow


def test_it_prints_a_rate_and_its_spread_for_each_size(monkeypatch, capsys):
    pytest.importorskip("anny")
    from benchmarks import bodies

    monkeypatch.setattr(bodies, "COUNT", 50)
    monkeypatch.setattr(bodies, "ROUNDS", 2)
    bodies.main()
    lines = capsys.readouterr().out.splitlines()
    found = [re.fullmatch(r"(\d+) pixels: (\d+) a second \((\d+) to (\d+)\)", line) for line in lines]
    sizes = [tuple(map(int, match.groups())) for match in found if match]
    assert [size for size, *_ in sizes] == [128, 224]
    assert all(0 < low <= middle <= high for _, middle, low, high in sizes)
