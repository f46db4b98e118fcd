"""Starting from a weights file: any common nesting, another grid, another head; and files that do not fit."""

import argparse
import codecs
import collections
import importlib
import os
import pathlib
import pickle
import random
import sys
import types

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

import dropkey.models
from dropkey.errors import RunError
from dropkey.models import weights as weights_module
from dropkey.models.weights import load_weights
from dropkey.runs.checkpoints import read_checkpoint

NAME = "vit_mini_patch2_8"


@pytest.fixture(scope="module")
def donor():
    torch.manual_seed(3)
    return timm.create_model(NAME, num_classes=10)


def fresh(**arguments):
    torch.manual_seed(4)
    return timm.create_model(NAME, **{"num_classes": 10, **arguments})


def same(one, other, keys):
    return all(torch.equal(one.state_dict()[key], other.state_dict()[key]) for key in keys)


@pytest.mark.parametrize("nest", ["", "state_dict", "model", "state_dict_ema", "ours", "safetensors"])
def test_every_nesting(donor, nest, tmp_path):
    path, weights = tmp_path / f"w.{'safetensors' if nest == 'safetensors' else 'pth'}", donor.state_dict()
    if nest == "safetensors":
        safetensors.torch.save_file(weights, path)
    elif nest == "ours":
        torch.save({"state_dict": {f"network.{key}": value for key, value in weights.items()}, "epoch": 3}, path)
    else:
        torch.save({nest: weights} if nest else weights, path)
    network = fresh()
    assert load_weights(network, path) == []
    assert same(network, donor, weights)


def test_another_head_starts_anew_and_says_so(donor, tmp_path):
    torch.save(donor.state_dict(), tmp_path / "w.pth")
    network = fresh(num_classes=3)
    before = network.head.weight.clone()
    notes = load_weights(network, tmp_path / "w.pth")
    assert len(notes) == 1
    assert "head" in notes[0]
    assert torch.equal(network.head.weight, before)
    assert same(network, donor, [key for key in donor.state_dict() if not key.startswith("head.")])


def test_position_embeddings_are_resized(donor, tmp_path):
    torch.save(donor.state_dict(), tmp_path / "w.pth")
    network = fresh(img_size=16)
    assert load_weights(network, tmp_path / "w.pth") == []
    grid = donor.pos_embed.detach().reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
    wide = network.pos_embed.detach().reshape(1, 8, 8, -1).permute(0, 3, 1, 2)
    back = torch.nn.functional.interpolate(wide, size=(4, 4), mode="bicubic", antialias=True, align_corners=False)
    assert torch.corrcoef(torch.stack([grid.flatten(), back.flatten()]))[0, 1] > 0.95


def lacking(weights):
    return {key: value for key, value in weights.items() if key != "blocks.1.attn.qkv.weight"}


def foreign(weights):
    return {**weights, "decoder.weight": torch.zeros(2)}


def misshapen(weights):
    return {**weights, "blocks.0.norm1.weight": torch.zeros(7)}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lacking, "lacks blocks.1.attn.qkv.weight"),
        (foreign, "decoder.weight"),
        (misshapen, "blocks.0.norm1.weight is (7,)"),
    ],
)
def test_weights_that_do_not_fit(donor, change, named, tmp_path):
    torch.save(change(donor.state_dict()), tmp_path / "w.pth")
    with pytest.raises(RunError, match="does not fit the model") as error:
        load_weights(fresh(), tmp_path / "w.pth")
    assert named in str(error.value)


PREFIXES = ["module.", "_orig_mod.", "model.", "net.", "backbone.", "network.", "module._orig_mod.", "model.module."]


@pytest.mark.parametrize("nest", ["", "state_dict", "model", "teacher", "state_dict_ema"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_prefix(donor, prefix, nest, tmp_path):
    weights = {prefix + key: value for key, value in donor.state_dict().items()}
    torch.save({nest: weights, "epoch": 3} if nest else weights, tmp_path / "w.pth")
    network = fresh()
    assert load_weights(network, tmp_path / "w.pth") == []
    assert same(network, donor, donor.state_dict())


def test_a_model_whose_own_names_begin_like_a_prefix(tmp_path):
    """Its names are right as they are."""
    network = torch.nn.ModuleDict({"module": torch.nn.ModuleDict({"module": torch.nn.Linear(2, 2)})})
    weights = {key: value + 1 for key, value in network.state_dict().items()}
    assert weights_module.without_prefixes(weights, network.state_dict()) == weights
    wrapped = {f"module.{key}": value for key, value in weights.items()}
    assert weights_module.without_prefixes(wrapped, network.state_dict()) == weights


class Options(dict):
    """As yacs' and Lightning's: a dict with attributes."""


def foreign_objects(monkeypatch):
    """What trainers save beside their weights, some of it of libraries that are not there when it is read."""
    yield "options", argparse.Namespace(lr=0.1, nested=argparse.Namespace(path=pathlib.PurePosixPath("a")))
    yield "numbers", {"best": np.float64(0.9), "step": np.int64(3), "ok": np.bool_(True)}
    yield "array", np.arange(5.0)
    yield "random", np.random.get_state()
    yield "path", pathlib.Path("runs/one")
    yield "counts", collections.defaultdict(int, a=1)
    for module, name in (("yacs.config", "CfgNode"), ("pytorch_lightning.utilities.parsing", "AttributeDict")):
        cls = type(name, (Options,), {"__module__": module})
        there = types.ModuleType(module)
        setattr(there, name, cls)
        monkeypatch.setitem(sys.modules, module.partition(".")[0], types.ModuleType("above"))
        monkeypatch.setitem(sys.modules, module, there)
        options = cls(lr=0.1, model=cls(depth=2))
        options.frozen = True
        yield name, options
    monkeypatch.undo()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_lies_beside_the_weights_is_passed_over(donor, legacy, tmp_path, monkeypatch):
    found = []
    for name, value in foreign_objects(monkeypatch):
        path = tmp_path / f"{name}.pth"
        content = {"args": value, "model": donor.state_dict(), "after": [value]}
        if name == "path" and sys.version_info >= (3, 14):
            continue
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        found.append(path)
    assert len(found) == 8
    for path in found:
        network = fresh()
        assert load_weights(network, path) == [], path.name
        assert same(network, donor, donor.state_dict())


def test_weights_of_a_run_with_re_attention(donor, tmp_path):
    mixed = fresh()
    dropkey.apply(mixed, dropkey.ReAttention())
    torch.save(mixed.state_dict(), tmp_path / "w.pth")
    with pytest.raises(RunError, match=r"of a model with Re-attention .*: --re-attention all"):
        load_weights(fresh(), tmp_path / "w.pth")
    again = fresh()
    dropkey.apply(again, dropkey.ReAttention())
    assert load_weights(again, tmp_path / "w.pth") == []
    assert same(again, mixed, mixed.state_dict())
    torch.save(donor.state_dict(), tmp_path / "plain.pth")
    assert load_weights(again, tmp_path / "plain.pth") == []
    assert same(again, donor, donor.state_dict())


class Evil:
    """Runs a command when it is unpickled by whoever runs code from files."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def made(path):
    raise AssertionError(f"{path} was run")


EVILS = {
    "builtin": lambda mark: Evil(eval, f"open({str(mark)!r}, 'w')"),
    "system": lambda mark: Evil(os.system, f"touch {mark}"),
    "import": lambda mark: Evil(importlib.import_module, "antigravity"),
    "function of torch": lambda mark: Evil(torch.hub.load, "a/b", "c"),
    "function here": lambda mark: Evil(made, mark),
    "file": lambda mark: Evil(pathlib.Path.touch, mark),
    "passed over": lambda mark: Evil(argparse.Namespace, Evil(os.system, f"touch {mark}")),
    "codec": lambda mark: Evil(codecs.encode, Evil(os.system, f"touch {mark}"), "latin1"),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("place", ["alone", "beside", "inside"])
@pytest.mark.parametrize("evil", EVILS)
def test_code_in_a_file_is_not_run(donor, evil, place, legacy, tmp_path):
    mark, path = tmp_path / "ran", tmp_path / "w.pth"
    thing, weights = EVILS[evil](mark), donor.state_dict()
    content = {"alone": thing, "beside": {"model": weights, "x": thing}, "inside": {"model": {**weights, "x": thing}}}
    torch.save(content[place], path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(RunError, match=r"holds .*, and such objects may run code; keep the tensors alone") as error:
        load_weights(fresh(), path)
    assert "weights_only" not in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(RunError, match="such objects may run code"):
        read_checkpoint(path)
    assert not mark.exists()


def test_files_that_are_no_weights(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"nonsense")
    (tmp_path / "folder.pth").mkdir()
    torch.save({"a": torch.zeros(3)}, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:300])
    (tmp_path / "text.pth").write_text("lr: 0.1")
    (tmp_path / "old.pth").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    torch.save([1, 2], tmp_path / "list.pth")
    names = ["w.safetensors", "folder.pth", "cut.pth", "text.pth", "old.pth", "list.pth", "none.pth", "x" * 300]
    for name in names:
        said = r"holds no weights|no weights file|not a file of weights|File name too"
        with pytest.raises(RunError, match=said) as error:
            load_weights(fresh(), tmp_path / name)
        assert "weights_only" not in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("seed", range(60))
def test_damaged_files_are_read_or_refused(seed, donor, tmp_path):
    generator, path = random.Random(seed), tmp_path / ("w.pth" if seed % 3 else "w.safetensors")
    if path.suffix == ".pth":
        torch.save({"model": {"a": torch.zeros(3)}, "args": argparse.Namespace(lr=1)}, path)
    else:
        safetensors.torch.save_file({"a": torch.zeros(3)}, path)
    content = bytearray(path.read_bytes())
    for _ in range(generator.randint(1, 5)):
        content[generator.randrange(len(content))] = generator.randrange(256)
    path.write_bytes(content[: generator.randint(1, len(content))] if generator.random() < 0.4 else content)
    with pytest.raises(RunError) as error:  # what can still be read does not fit
        load_weights(fresh(), path)
    assert "\n" not in str(error.value)
