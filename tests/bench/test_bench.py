"""What dropkey bench measures and prints, on shapes small enough for a test."""

import itertools
import json

import pytest
import torch

import dropkey
from dropkey.bench import attention, report
from dropkey.bench.attention import bench_attention
from dropkey.bench.memory import peak_bytes
from dropkey.bench.timing import interleaved
from dropkey.bench.ways import BASELINE, known_ways, two_lines, way
from dropkey.cli import main


def test_rounds_are_interleaved_and_ratios_taken_round_by_round(monkeypatch):
    clock, order = [0.0], []

    def candidate(name, seconds):
        def run():
            order.append(name)
            clock[0] += seconds.pop(0)

        return run

    monkeypatch.setattr("dropkey.bench.timing.time.perf_counter", lambda: clock[0])
    times = interleaved({"a": candidate("a", [9, 1, 2, 4]), "b": candidate("b", [9, 2, 4, 8])}, rounds=3, warm_up=1)
    assert order == ["a", "b", "a", "b", "a", "b", "a", "b"]
    assert times["a"].median_ms == 2000
    assert times["b"].ratio == 2
    assert (times["b"].low_ms, times["b"].high_ms) == (2000, 8000)


def test_every_way_attends():
    query, key, value = torch.randn(3, 2, 3, 9, 8)
    for name in known_ways(["sdpa", "reference"], "element"):
        if not name.endswith("compiled"):
            assert way(name)(query, key, value, 0.3).shape == (2, 3, 9, 8), name
    torch.testing.assert_close(way(BASELINE)(query, key, value, 0.3), dropkey.attention(query, key, value))


def test_the_papers_two_lines_are_dropkey():
    """Their mask is torch's own, but it shows in the weights: those are the softmax over what was kept."""
    query, key, _ = torch.randn(3, 1, 1, 50, 8, generator=torch.Generator().manual_seed(0))
    attn = two_lines(query, key, torch.eye(50).expand(1, 1, 50, 50), 0.3)
    torch.testing.assert_close(attn.sum(-1), torch.ones(1, 1, 50))
    kept = attn > 0
    assert 1 - kept.float().mean().item() == pytest.approx(0.3, abs=0.05)
    logits = (query @ key.mT * 8**-0.5).masked_fill(~kept, -torch.inf)
    torch.testing.assert_close(attn, logits.softmax(-1))


def test_peak_memory_sees_the_maps():
    """A map of 4 x 1000 x 1000 floats is 15 MiB; torch's fused attention has none."""
    fused, maps = (
        peak_bytes(name, (1, 4, 1000, 8), "float32", 0.3, True) for name in (BASELINE, "the paper's two lines")
    )
    assert maps > 15 * 2**20
    assert fused < maps / 2


def test_bench_attention(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("dropkey.bench.attention.peak_bytes", lambda *_: 2**20)
    file = tmp_path / "deep" / "attention.json"
    assert main(["bench", "attention", "--shape", "1,2,40,8", "--rounds", "2", "--output", str(file)]) == 0
    text = capsys.readouterr().out
    assert "(B, H, N, D) = (1, 2, 40, 8), float32, forward + backward" in text
    assert "the paper's two lines" in text
    assert "of gemm rate" in text
    saved = json.loads(file.read_text())
    assert {"device", "threads", "native_kernel", "torch", "date"} <= set(saved["machine"])
    assert f"measured on {saved['machine']['device']}; threads: {torch.get_num_threads()}; " in text
    assert f"native kernel: {dropkey.backends()['cpu']}" in text
    assert saved["command"].startswith("dropkey bench attention --shape 1,2,40,8")
    baseline = [row for row in saved["rows"] if row["way"] == BASELINE]
    assert [row["ratio"] for row in baseline] == [1.0, 1.0]
    assert all(row["peak_mib"] == 1 and row["median_ms"] > 0 for row in saved["rows"])
    assert file.with_suffix(".png").exists()


def test_shares_of_the_gemm_rate_and_float32_beside_16_bits(capsys, monkeypatch):
    """Every run takes 1 ms on this clock, so rates are as the operations counted by hand."""
    ticks = itertools.count()
    monkeypatch.setattr("dropkey.bench.attention._GEMM_SIZE", 32)  # 2 ** 16 operations
    monkeypatch.setattr("dropkey.bench.timing.time.perf_counter", lambda: next(ticks) * 1e-3)
    rows = bench_attention([(1, 2, 40, 8)], dtype="bfloat16", rounds=2, memory=False)
    shares = {row["direction"]: row["share_of_gemm"] for row in rows if row["way"] == BASELINE}
    product = 2 * 40 * 40 * 8 * 2  # two heads, a multiplication and an addition each
    want = {"forward": 2 * product / 2**16, "forward + backward": 7 * product / 2**16}
    assert shares == pytest.approx(want, abs=0.001)
    ours = [row["way"] for row in rows if row["way"].startswith("dropkey ")]
    assert sum(name.endswith(", float32") for name in ours) == 2
    assert ", float32" in report.table(rows)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_bench_model(precision, capsys, monkeypatch):
    dtypes, attend = set(), dropkey.ops.cpu.backend.Cpu.attend
    monkeypatch.setattr(
        "dropkey.ops.cpu.backend.Cpu.attend", lambda cpu, call: dtypes.add(call.query.dtype) or attend(cpu, call)
    )
    arguments = ["--model", "vit_mini_patch2_8", "--batch-size", "2", "--rounds", "2", "--precision", precision]
    assert main(["bench", "model", *arguments]) == 0
    assert dtypes <= {torch.bfloat16 if precision == "bf16-mixed" else torch.float32}
    text = capsys.readouterr().out
    assert f"training step of vit_mini_patch2_8, batch 2, {precision}" in text
    assert "no regularizer" in text
    assert "dropkey token, constant 0.5" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["atention"], "did you mean 'attention'"),
        (["attention", "--shape", "1,2,3"], "four numbers B,H,N,D"),
        (["attention", "--shape", "1,2,0,4"], "four numbers B,H,N,D"),
        (["attention", "--dtype", "int8"], "--dtype must be"),
        (["attention", "--pattern", "block"], "--pattern must be one of element, column, token"),
        (["attention", "--drop-ratio", "0"], "--drop-ratio must be a number in (0, 1), got 0"),
        (["attention", "--drop-ratio", "2"], "--drop-ratio must be a number in (0, 1), got 2"),
        (["attention", "--rounds", "0"], "--rounds must be a whole number, 1 or more"),
        (["model", "--model", "vit_smal"], "timm has no model 'vit_smal'"),
        (["model", "--precision", "bf16"], "--precision must be"),
        (["model", "--batch-size", "0"], "--batch-size must be a whole number, 1 or more"),
    ],
)
def test_bad_options(arguments, message, capsys):
    assert main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("stop", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_what_was_measured_before_an_end_is_kept(stop, tmp_path, capsys, monkeypatch):
    shapes = [(1, 1, 5, 8), (1, 1, 6, 8), (1, 1, 7, 8)]

    def measured(chosen, **options):
        if chosen == shapes[2:]:
            raise stop
        return real(chosen, **options)

    real = attention.bench_attention
    monkeypatch.setattr(attention, "SHAPES", shapes)
    monkeypatch.setattr(attention, "bench_attention", measured)
    options = ["--no-memory", "--rounds", "1", "--output", str(tmp_path / "b.json")]
    assert main(["bench", "attention", *options]) in (2, 130)
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert "(1, 1, 6, 8)" in said.out
    kept = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert [tuple(row["shape"]) for row in kept][:: len(kept) // 2] == shapes[:2]
