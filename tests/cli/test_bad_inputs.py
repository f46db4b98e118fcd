"""Over two hundred inputs that no command can use: exit code 2, one line that names the thing, nothing lost."""

import itertools
import json
import shutil

import pytest
import torch
from cli.test_errors import image_tree

from dropkey.cli import main

TINY = ["--model", "vit_mini_patch2_8", "--model-kwargs", "depth=1", "embed_dim=8", "num_heads=1", "--workers", "0"]
QUICK = [*TINY, "--epochs", "1", "--batch-size", "4"]
LONG = "x" * 300


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of images and a run that has ended."""
    root = tmp_path_factory.mktemp("place")
    image_tree(root / "images")
    assert main(["train", *QUICK, *folder(root), "--output", str(root / "run")]) == 0
    return root


def folder(root):
    return ["--data", "folder", "--data-dir", str(root / "images")]


def everything(root):
    return {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


# Numbers: each option with what it does not take, for each command that has it.

NUMBERS = {
    "drop-ratio": ["-0.1", "1", "1.5", "nan", "inf", "much", "1e-9", "0.9999999"],
    "epochs": ["0", "-1", "1.5", "many", "1e3"],
    "batch-size": ["0", "-4", "2.5", "x"],
    "lr": ["0", "-1", "nan", "inf", "fast"],
    "weight-decay": ["-1", "nan", "x"],
    "warmup-epochs": ["-1", "nan"],
    "layer-decay": ["0", "-1"],
    "clip-grad": ["-1", "inf"],
    "ema": ["1", "-0.1", "2"],
    "drop-path": ["1", "-0.1"],
    "label-smoothing": ["1", "-0.1"],
    "mixup": ["-1", "x"],
    "cutmix": ["-1", "nan"],
    "rand-augment": ["-1", "11", "x"],
    "color-jitter": ["-1"],
    "random-erasing": ["1", "-0.1"],
    "seed": ["-1", "1.5", "x"],
    "devices": ["0", "-1"],
    "accumulate": ["0"],
    "workers": ["-1", "two"],
    "threads": ["-1", "x"],
    "save-seconds": ["-1", "nan"],
    "img-size": ["-1", "7", "x"],
    "window-size": ["0", "2", "-1", "x"],
    "finetune-epochs": ["-1", "99"],
    "map-similarity-loss": ["-1"],
}
# Names: one letter wrong, another case, nothing, two of them, a number, control characters.
NAMES = {
    "data": ["digit", "DIGITS", " ", "digits cifar10", "7", "dig\nits"],
    "model": ["vit_tny", "vit_mini_patch2_9", "", "resnet18", "hf-hub:a/b", "local-dir:x", "../x", "vit\x00"],
    "regularizer": ["dropky", "Dropkey", "", "0"],
    "schedule": ["linear", "0.3,x", "0.3,0.1,0.2", "1.0", ",", "-0.1"],
    "pattern": ["blok", "Element", "", "3"],
    "precision": ["64", "16", "bf16"],
    "strategy": ["dp", "fsdp"],
    "re-attention": ["some", "0", "-1", "9", "1.5"],
    "mirror": ["perhaps", "2"],
    "model-kwargs": ["depth", "=2", "img_size=8", "checkpoint_path=x", "deph=2", "depth=two", "pretrained_cfg=a"],
    "task": ["classify", ""],
    "weights": ["nowhere.pth", LONG, ".", "\x00"],
    "config": ["nowhere.yaml", LONG, ".", "\x00"],
    "data-dir": ["nowhere", LONG, "run", "\x00"],
    "output": ["run", "images/train/cat/0.png/x", LONG, "images/train/cat/0.png", "\x00"],
}
OF_TRAIN = [(name, value) for options in (NUMBERS, NAMES) for name, values in options.items() for value in values]
NOT_ALONE = {"data-dir": ["--data", "folder"], "window-size": ["--pattern", "block"], "mirror": ["--data", "folder"]}


@pytest.mark.parametrize(("name", "value"), OF_TRAIN, ids=lambda part: repr(part)[:30])
def test_options_of_train(name, value, place, monkeypatch, capsys):
    given = ["train", *QUICK, *([] if name == "data-dir" else folder(place)), *NOT_ALONE.get(name, [])]
    refused([*given, f"--{name}={value}"], place, monkeypatch, capsys)


EVALUATE = {
    "checkpoint": ["first", ""],
    "monte-carlo": ["1", "-1", "x"],
    "occlusion": ["x", "2", "-0.1", "0.1,x"],
    "batch-size": ["0", "x"],
    "seed": ["-1"],
    "output": [".", "nowhere/x.json", LONG, "images/train/cat/0.png/x.json", "\x00"],
    "save-predictions": [".", "nowhere/x.csv"],
    "data-dir": ["nowhere", LONG],
    "data": ["digits"],
    "weights": ["w.pth"],
    "img-size": ["8"],
    "regularizer": ["dropkey"],
    "config": ["nowhere.yaml"],
}
VERIFY = {
    "drop-ratio": ["1", "-1", "x"],
    "schedule": ["linear", "0.1,0.2"],
    "pattern": ["blok"],
    "window-size": ["2", "3"],
    "batch-size": ["0"],
    "img-size": ["7", "-1"],
    "seed": ["-1"],
    "config": ["nowhere.yaml"],
}
OTHERS = [
    *((["evaluate", "run", f"--{name}={value}"]) for name, values in EVALUATE.items() for value in values),
    *((["verify", "run", f"--{name}={value}"]) for name, values in VERIFY.items() for value in values),
    *(
        [command, name]
        for command, name in itertools.product(
            ("evaluate", "verify"), ("nowhere", "nowhere/at/all", "images", LONG, "", "resnet18", "\x00", "vit_tny")
        )
    ),
    *(
        ["compare", f"--{name}={value}"]
        for name, value in [("seeds", "0"), ("seeds", "x"), ("jobs", "0"), ("jobs", "-1")]
    ),
    *(
        ["compare", "--arms", *arms]
        for arms in (
            ["dropky"],
            ["dropkey:drop-ratio"],
            ["dropkey:drop-ratio=2"],
            ["dropkey:seed=3"],
            ["none", "none"],
            [""],
        )
    ),
    *(
        ["bench", *words]
        for words in (["atention"], ["attention", "--shape", "1,2"], ["attention", "--shape", "a,b,c,d"])
    ),
    *(
        ["bench", "attention", f"--{name}={value}"]
        for name, value in [("drop-ratio", "1"), ("rounds", "0"), ("dtype", "int8")]
    ),
    *([command, "--no-such-option"] for command in ("train", "compare", "evaluate", "verify")),
    *([word] for word in ("trian", "Train", "--versoin", "\x00", "")),
    ["train", "--resume"],
    ["train", "--resume", "--output", "run", "--task", "mesh"],
    ["train", "more", "words"],
    ["experiment", "list", "--seeds", "3"],
    ["evaluate"],
    ["verify"],
    ["evaluate", "run", "again"],
]


@pytest.mark.parametrize(
    "command", OTHERS, ids=lambda command: " ".join(command)[:50].encode("unicode_escape").decode()
)
def test_other_commands(command, place, monkeypatch, capsys):
    refused(command, place, monkeypatch, capsys)


def refused(command, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    before = everything(place)
    assert main(command) == 2
    said = capsys.readouterr()
    line, *more = said.err.splitlines()
    assert not more, said.err
    assert line.startswith("dropkey: ")
    assert line.isprintable()
    assert len(line) > len("dropkey: ") + 5
    assert everything(place) == before


# Files of a run that were damaged.

DAMAGES = {
    "config.yaml": [
        b"",
        b"\xff\xfe",
        b"a: [",
        b"- 1",
        b"epochs: many",
        b"model: 5",
        b"task: [1]",
        b"x: &a [*a]",
        b"a: " + b"[" * 3000,
    ],
    "summary.json": [b"", b'{"a', b"[]", b"\xff", b"[" * 3000],
    "metrics.csv": [b"", b"epoch\nx", b"\xff", b"\0"],
    "checkpoints/last.ckpt": [b"", b"PK\x03\x04", b"text", b"\x80\x02."],
}
READERS = {
    "config.yaml": [["evaluate", "run"], ["verify", "run"], ["train", "--resume", "--output", "run"]],
    "summary.json": [["train", "--resume", "--output", "run"]],
    "metrics.csv": [],
    "checkpoints/last.ckpt": [["evaluate", "run"]],
}
DAMAGED = [
    (file, content, command) for file, contents in DAMAGES.items() for content in contents for command in READERS[file]
]


@pytest.mark.parametrize(("file", "content", "command"), DAMAGED, ids=lambda part: repr(part)[:40])
def test_damaged_files(file, content, command, place, tmp_path, monkeypatch, capsys):
    shutil.copytree(place / "run", tmp_path / "run")
    (tmp_path / "run" / file).write_bytes(content)
    refused(command, tmp_path, monkeypatch, capsys)


def test_damaged_metrics(place, tmp_path):
    from dropkey.errors import RunError
    from dropkey.runs.run_folder import RunFolder

    for content in DAMAGES["metrics.csv"]:
        (tmp_path / "metrics.csv").write_bytes(content)
        with pytest.raises(RunError, match=r"metrics\.csv is damaged"):
            RunFolder(tmp_path).read_metrics()


def test_a_checkpoint_of_something_else(place, tmp_path, monkeypatch, capsys):
    for content in ({"state_dict": {}}, {"state_dict": {"network.x": torch.zeros(1)}}, [1], {"a": 1}):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(place / "run", tmp_path / "run")
        torch.save(content, tmp_path / "run" / "checkpoints" / "last.ckpt")
        refused(["evaluate", "run"], tmp_path, monkeypatch, capsys)


def test_there_are_over_two_hundred():
    assert len(OF_TRAIN) + len(OTHERS) + len(DAMAGED) > 200


def test_the_run_is_still_whole(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    assert main(["evaluate", "run"]) == 0
    assert json.loads((place / "run" / "evaluation.json").read_text())["images"] == 6
