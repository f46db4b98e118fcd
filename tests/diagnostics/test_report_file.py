"""Looks that a run keeps: what is read is what was seen, in half precision."""

import pytest
import torch
from conftest import tiny_vit
from reports import planted

import dropkey
from dropkey.diagnostics.report_file import read_looks, write_look


def same(one, other):
    if isinstance(other, torch.Tensor):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4, equal_nan=True)
    elif isinstance(other, dict):
        assert list(one) == list(other)
        for key in other:
            same(one[key], other[key])
    else:
        assert one == other


def test_what_is_read_is_what_was_written(tmp_path):
    reports = [dropkey.diagnose(tiny_vit(), torch.randn(2, 3, 32, 32)), planted()]
    for number, report in zip((11, 2), reports, strict=True):
        write_look(tmp_path, number, report)
    looks = read_looks(tmp_path)
    assert list(looks) == ["epoch 3", "epoch 12"]
    for read, report in zip(looks.values(), reversed(reports), strict=True):
        assert len(read.sites) == len(report.sites)
        for one, other in zip([read, *read.sites], [report, *report.sites], strict=True):
            for name in vars(other).keys() - {"sites"}:
                same(getattr(one, name), getattr(other, name))
    assert not list(tmp_path.glob("*.part"))


def test_large_maps_are_pooled_and_measures_are_not(tmp_path):
    report = planted(grid=(16, 16), sites=1)
    write_look(tmp_path, 0, report)
    site = read_looks(tmp_path)["epoch 1"].sites[0]
    assert (site.key_grid, site.key_cell) == ((8, 8), 2)
    torch.testing.assert_close(site.maps.sum(-1), torch.ones(2, 2, 66), rtol=1e-2, atol=0)
    torch.testing.assert_close(site.measures["entropy"], report.sites[0].measures["entropy"])


def test_no_code_is_run_from_a_file(tmp_path):
    class Bad:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"sites": [Bad()]}, tmp_path / "epoch-0000.report")
    with pytest.raises(dropkey.DropKeyError, match=r"epoch-0000.report is not a look at attention"):
        read_looks(tmp_path)


def test_files_of_others_are_no_looks(tmp_path):
    (tmp_path / "epoch-notes.report").write_text("mine")
    assert read_looks(tmp_path) == {}
