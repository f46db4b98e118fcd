"""Files that commands write: an earlier result may be replaced, nothing else; said before anything is measured."""

from pathlib import Path

import pytest
from cli.test_errors import image_tree

from dropkey.bench import attention as benching
from dropkey.cli import main
from dropkey.diagnostics import diagnose as looking
from dropkey.runs.run_folder import RunFolder
from dropkey.tasks import loading

TINY = ["--model", "vit_mini_patch2_8", "--model-kwargs", "depth=1", "embed_dim=8", "num_heads=1", "--workers", "0"]
# Of each command: its words, the option that names a file, and what an earlier result begins with.
WRITERS = {
    "evaluate": (["evaluate", "run"], "--output", b'{"accuracy": 0'),
    "diagnose": (["diagnose", "run"], "--output", b"<!DOCTYPE html>"),
    "bench": (["bench", "attention", "--shape", "1,1,4,8", "--rounds", "1", "--no-memory"], "--output", b'\n {"rows":'),
}
every_writer = pytest.mark.parametrize(("words", "option", "earlier"), WRITERS.values(), ids=WRITERS)
SOMEBODYS = {
    "text": b"dear diary",
    "table": b"epoch,loss\n1,2\n",
    "archive": b"PK\x03\x04",
    "program": b"#!/bin/sh\n",
    "bytes": bytes(range(256)),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("place")
    image_tree(root / "images")
    data = ["--data", "folder", "--data-dir", str(root / "images")]
    command = ["train", *TINY, "--epochs", "1", "--batch-size", "4", "--warmup-epochs", "0", *data]
    assert main([*command, "--output", str(root / "run")]) == 0
    return root


@pytest.fixture(autouse=True)
def nothing_is_measured(place, monkeypatch):
    monkeypatch.chdir(place)

    def measure(*arguments, **options):
        raise AssertionError("measured, though the result cannot be kept")

    for module, function in ((loading, "load_run"), (benching, "bench_attention"), (looking, "diagnose")):
        monkeypatch.setattr(module, function, measure)


def everything(root):
    return {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def refused(words, named, place, capsys):
    before = everything(place)
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line
    assert everything(place) == before


@every_writer
@pytest.mark.parametrize("content", SOMEBODYS.values(), ids=SOMEBODYS)
def test_files_of_somebody_are_left_alone(words, option, earlier, content, place, capsys):
    (place / "mine.data").write_bytes(content)
    refused([*words, option, "mine.data"], "mine.data: it holds something else", place, capsys)


@every_writer
@pytest.mark.parametrize("which", [str(file) for file in RunFolder(Path()).files])
def test_files_of_a_run_are_left_alone(words, option, earlier, which, place, capsys):
    refused([*words, option, f"run/{which}"], "it is a file of the run itself", place, capsys)


@every_writer
@pytest.mark.parametrize("content", [b"", None])
def test_an_earlier_result_is_replaced(words, option, earlier, content, place):
    """What would measure is reached: the file was found fit to be written over."""
    (place / "earlier.data").write_bytes(earlier if content is None else content)
    with pytest.raises(AssertionError, match="measured"):
        main([*words, option, "earlier.data"])


def test_a_run_that_had_ended_says_that_nothing_is_trained(place, capsys):
    assert main(["train", "--resume", "--output", "run", "--data-dir", "elsewhere"]) == 0
    assert "the run in run had ended: nothing is trained now" in capsys.readouterr().out


def test_results_are_not_written_over_each_other(place, capsys):
    same = ["evaluate", "run", "--output", "x.json", "--save-predictions", "./x.json"]
    refused(same, "one would be written over the other", place, capsys)
    refused(["evaluate", "run", "--output", "x.html"], "name a JSON file", place, capsys)
    bench = ["bench", "attention", "--shape", "1,1,4,8", "--output"]
    refused([*bench, "x.png"], "name the JSON file, x.json", place, capsys)
    (place / "plot.png").write_bytes(b"no plot")
    refused([*bench, "plot.json"], "plot.png: it holds something else", place, capsys)
    (place / "plot.png").unlink()


@pytest.mark.parametrize("shape", ["\u00b2,1,1,1", "1,1,1", "1,1,1,0", "1,1,1,1.5", "a,b,c,d", "1,,1,1", "-1,1,1,1"])
def test_shapes_that_are_none(shape, place, capsys):
    refused(["bench", "attention", f"--shape={shape}"], "--shape takes four numbers", place, capsys)


@pytest.mark.parametrize("error", [RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), MemoryError()])
@pytest.mark.parametrize(("kind", "remedy"), [("attention", "a smaller --shape"), ("model", "a smaller --batch-size")])
def test_a_bench_without_memory_names_its_own_option(kind, remedy, error, place, monkeypatch, capsys):
    def measure(*arguments, **options):
        raise error

    monkeypatch.setattr(f"dropkey.bench.{kind}.bench_{kind}", measure)
    refused(["bench", kind], f"out of memory: {remedy}", place, capsys)


@pytest.mark.parametrize("command", ["bench attention", "train", "audit"])
def test_options_of_the_parser_are_no_hint(command, place, capsys):
    assert main([*command.split(), "--print"]) == 2
    assert "print_" not in capsys.readouterr().err


OF_DIAGNOSE = {
    "checkpoint": ["vit_mini_patch2_8", "images/val/cat/0.png", "--checkpoint", "best"],
    "data-dir": ["vit_mini_patch2_8", "images/val/cat/0.png", "--data-dir", "images"],
    "seed": ["run", "--seed", "3"],
}


@pytest.mark.parametrize("name", OF_DIAGNOSE)
def test_options_of_diagnose_act_or_are_refused(name, place, capsys):
    refused(["diagnose", *OF_DIAGNOSE[name]], f"--{name} acts only with", place, capsys)
