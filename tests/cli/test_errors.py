"""Everything that a user can get wrong ends in one line on stderr that names it, and exit code 2."""

import errno
import os
import sys
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from PIL import Image

from dropkey.cli import main
from dropkey.tasks.classification.module import Classification


def image_tree(root, classes=("cat", "dog"), per_class=3, size=8):
    for split in ("train", "val"):
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for count in range(per_class):
                Image.new("RGB", (size + count, size), (80 * label, 20 * count, 0)).save(folder / f"{count}.png")
    return root


SWIN = ["--model", "swin_tiny_patch4_window7_224", "--regularizer", "none"]
BAD_OPTIONS = {
    "no such subcommand": (["trian"], "did you mean 'train'"),
    "no such option": (["train", "--drop-ration", "0.1"], "did you mean '--drop-ratio'"),
    "ratio of 1.2": (["train", "--drop-ratio", "1.2"], "--drop-ratio must be a number in [0, 1), got 1.2"),
    "ratio is a word": (["train", "--drop-ratio", "much"], "--drop-ratio must be a number in [0, 1), got much"),
    "negative ratio": (["train", "--drop-ratio", "-0.1"], "--drop-ratio must be a number in [0, 1)"),
    "unknown model": (["train", "--model", "vit_mini_patch2_9"], "did you mean 'vit_mini_patch2_8'"),
    "model without attention": (["train", "--model", "resnet18"], "found no supported attention module"),
    "unknown data": (["train", "--data", "digit"], "did you mean 'digits'"),
    "unknown regularizer": (
        ["train", "--regularizer", "dropky"],
        "got dropky; did you mean 'dropkey'",
    ),
    "unknown schedule": (["train", "--schedule", "linear"], "did you mean 'linear_decay'"),
    "schedule of wrong length": (["train", "--schedule", "0.3,0.1"], "4 blocks"),
    "schedule of wrong ratios": (["train", "--schedule", "0.3,1.1"], "--schedule: drop_ratio must be in [0, 1)"),
    "schedule half a list": (["train", "--schedule", "0.3,x"], "--schedule"),
    "unknown pattern": (["train", "--pattern", "blok"], "did you mean 'block'"),
    "even window": (["train", "--pattern", "block", "--window-size", "2"], "--window-size must be an odd number"),
    "window without block": (
        ["train", "--window-size", "3"],
        "acts only with --pattern block or cross",
    ),
    "no epochs": (["train", "--epochs", "0"], "--epochs must be a whole number, 1 or more"),
    "half an epoch": (
        ["train", "--epochs", "0.5"],
        "--epochs must be a whole number, 1 or more and below 2^63, got 0.5",
    ),
    "more epochs than can be counted": (["train", "--epochs", "1" + 400 * "0"], "1 or more and below 2^63, got 1000"),
    "empty batch": (["train", "--batch-size", "0"], "--batch-size must be a whole number, 1 or more"),
    "learning rate of 0": (["train", "--lr", "0"], "--lr must be a number above 0"),
    "negative decay": (["train", "--weight-decay", "-1"], "--weight-decay must be a number, 0 or more"),
    "too many fine-tuning epochs": (["train", "--epochs", "2", "--finetune-epochs", "3"], "--finetune-epochs"),
    "smoothing of 1": (["train", "--label-smoothing", "1"], "--label-smoothing must be a number in [0, 1)"),
    "size that is no multiple": (
        ["train", "--img-size", "9"],
        "not a multiple of the patch size (2)",
    ),
    "model arguments that are none": (["train", "--model-kwargs", "depth"], "takes name=value, got 'depth'"),
    "model arguments said elsewhere": (["train", "--model-kwargs", "img_size=8"], "--img-size"),
    "a file to load in model arguments": (["train", "--model-kwargs", "checkpoint_path=x.pth"], "--weights"),
    "model arguments it has not": (["train", "--model-kwargs", "deph=2"], "unexpected keyword argument 'deph'"),
    "odd batch for mixup": (["train", "--mixup", "0.2", "--batch-size", "7"], "must be even"),
    "two sources of weights": (["train", "--pretrained", "--weights", "w.pth"], "leave one out"),
    "missing weights": (["train", "--weights", "nowhere.pth"], "no weights file nowhere.pth"),
    "endless learning rate": (["train", "--lr", "inf"], "--lr must be a number above 0, got inf"),
    "average that never moves": (["train", "--ema", "1"], "--ema must be a number in [0, 1)"),
    "re-attention of some": (
        ["train", "--re-attention", "some"],
        "must be none, all, or a number of blocks",
    ),
    "re-attention of too many": (["train", "--re-attention", "9"], "needs 9 blocks"),
    "imagenet without a folder": (["train", "--data", "imagenet"], "--data-dir"),
    "imagenet that is not there": (["train", "--data", "imagenet", "--data-dir", "."], "image-net.org"),
    "unknown precision": (["train", "--precision", "64"], "precision"),
    "shards in one process": (["train", "--strategy", "fsdp"], "--strategy fsdp shards over processes"),
    "average of shards": (["train", "--strategy", "fsdp", "--ema", "0.9"], "--ema averages whole models"),
    "scaled gradients of shards": (["train", "--strategy", "fsdp", "--precision", "16-mixed"], "takes bf16-mixed"),
    "alike maps of windows": (["train", *SWIN, "--map-similarity-loss", "0.1"], "this SwinTransformer has none"),
    "negative weight": (["train", "--map-similarity-loss", "-1"], "--map-similarity-loss must be a number, 0 or more"),
    "evaluate nothing": (["evaluate"], "name"),
    "evaluate a folder that is no run": (["evaluate", "."], "not a run folder"),
    "compare without a seed": (["compare", "--seeds", "0"], "--seeds must be a whole number, 1 or more"),
    "compare an unknown arm": (["compare", "--arms", "dropky"], "the arm 'dropky'"),
    "folder without a folder": (["train", "--data", "folder"], "--data-dir"),
    "digits from a folder": (["train", "--data-dir", "nowhere"], "--data folder"),
    "missing folder": (["train", "--data", "folder", "--data-dir", "nowhere"], "no folder nowhere"),
    "resume what": (["train", "--resume"], "--output"),
    "missing config": (["train", "--config", "nowhere.yaml"], "nowhere.yaml"),
    "verify nothing": (["verify"], "name"),
    "verify unknown model": (["verify", "vit_tiny_patch16_223"], "did you mean"),
    "verify a model without attention": (["verify", "resnet18"], "found no supported attention module"),
    "verify a folder that is no run": (["verify", "."], "neither a run folder nor a model"),
}


@pytest.mark.parametrize(("command", "named"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_bad_options(command, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    check_one_line(capsys.readouterr().err, named)
    assert list(tmp_path.iterdir()) == []  # a run that cannot start leaves nothing


def check_one_line(err, named):
    assert len(err.splitlines()) == 1, err
    assert err.startswith("dropkey: ")
    assert named in err


def truncate(root):
    file = root / "train" / "dog" / "1.png"
    file.write_bytes(file.read_bytes()[:40])
    return "train/dog/1.png"


def write_text(root):
    (root / "val" / "cat" / "2.png").write_text("no image at all")
    return "val/cat/2.png"


def empty_class(root):
    (root / "train" / "emu").mkdir()
    (root / "val" / "emu").mkdir()
    return "train/emu holds no images"


def lone_class(root):
    (root / "train" / "emu").mkdir()
    Image.new("RGB", (8, 8)).save(root / "train" / "emu" / "0.png")
    return "different classes: only train has 'emu'"


def no_val(root):
    (root / "val").rename(root / "validation")
    return "no folder"


@pytest.mark.parametrize("spoil", [truncate, write_text, empty_class, lone_class, no_val])
@pytest.mark.parametrize("workers", [0, 1])
def test_bad_folders(spoil, workers, tmp_path, capsys):
    named = spoil(image_tree(tmp_path / "images"))
    command = ["train", "--data", "folder", "--data-dir", str(tmp_path / "images"), "--model", "vit_mini_patch2_8"]
    command += ["--epochs", "1", "--warmup-epochs", "0", "--workers", str(workers)]
    assert main([*command, "--output", str(tmp_path / "run")]) == 2
    check_one_line(capsys.readouterr().err, named)


BAD_CONFIGS = {
    "unknown key": ("drop_ratoi: 0.1", "drop_ratoi"),
    "wrong type": ("epochs: many", "epochs"),
    "no mapping": ("- 1", ""),
    "code": ("model: !!python/object/apply:os.mkdir [hacked]", "python/object"),
    "no yaml": ("a: [", ""),
    "an option twice": ("epochs: 1\nepochs: 2", "'epochs' twice"),
    "another config": ("config: other.yaml", "unknown option 'config'"),
    "a request for help": ("help: true", "unknown option 'help'"),
    "a mapping for a text": ("model_kwargs: {depth: 1}", "model_kwargs must be written as on the command line"),
    "a mapping for a number": ("epochs: {a: 1}", "epochs must be written as on the command line"),
}


@pytest.mark.parametrize(("text", "named"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_bad_configs(text, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(text)
    assert main(["train", "--config", "c.yaml"]) == 2
    check_one_line(capsys.readouterr().err, named)
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


FEW = ["--data", "folder", "--model", "vit_mini_patch2_8", "--epochs", "2", "--warmup-epochs", "0", "--batch-size", "4"]


def train_folder(tmp_path, *more):
    return main(["train", *FEW, "--workers", "0", "--data-dir", str(tmp_path / "images"), *more])


@pytest.fixture
def images(tmp_path):
    return image_tree(tmp_path / "images")


@pytest.fixture
def run(images, tmp_path):
    assert train_folder(tmp_path, "--output", str(tmp_path / "run")) == 0
    (tmp_path / "run" / "summary.json").unlink()  # as if it had been killed at the very end
    return tmp_path / "run"


def test_a_loss_that_is_not_finite(images, tmp_path, capsys):
    assert train_folder(tmp_path, "--lr", "1e30", "--clip-grad", "0", "--output", str(tmp_path / "run")) == 2
    check_one_line(capsys.readouterr().err, "the loss is not finite after step 0 (epoch 1)")
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


def test_a_loss_that_is_not_finite_inside_an_epoch(images, tmp_path, capsys):
    assert (
        train_folder(
            tmp_path, "--lr", "1e30", "--clip-grad", "0", "--batch-size", "2", "--output", str(tmp_path / "run")
        )
        == 2
    )
    check_one_line(capsys.readouterr().err, "the loss is not finite at step 1 (epoch 1)")


def test_a_folder_that_cannot_be_made(images, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert train_folder(tmp_path, "--output", str(tmp_path / "file" / "run")) == 2
    check_one_line(capsys.readouterr().err, "cannot make the run folder")


@pytest.mark.parametrize("name", ["metrics.csv", "last.ckpt", "best.ckpt", "curves.png", "summary.json"])
def test_a_full_disk_keeps_what_was_there(run, name, tmp_path, monkeypatch, capsys):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.name == name}
    real = os.fsync

    def fsync(descriptor):
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == f"{name}.part":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    fresh = name not in ("summary.json", "curves.png")
    more = ["--output", str(tmp_path / "other")] if fresh else ["--resume", "--output", str(run)]
    assert train_folder(tmp_path, *more) == 2
    check_one_line(capsys.readouterr().err, f"{name}: No space left on device")
    assert {path: path.read_bytes() for path in before} == before
    assert not list(tmp_path.rglob("*.part"))


def test_other_classes_on_resume(run, tmp_path, capsys):
    for split in ("train", "val"):
        (tmp_path / "images" / split / "dog").rename(tmp_path / "images" / split / "dingo")
    assert train_folder(tmp_path, "--resume", "--output", str(run)) == 2
    check_one_line(capsys.readouterr().err, "'dingo', 'dog'")
    assert main(["evaluate", str(run)]) == 2
    check_one_line(capsys.readouterr().err, "'dingo', 'dog'")


def test_another_number_of_classes_on_resume(run, tmp_path, capsys):
    for split in ("train", "val"):
        (tmp_path / "images" / split / "emu").mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / split / "emu" / "0.png")
    assert train_folder(tmp_path, "--resume", "--output", str(run)) == 2
    check_one_line(capsys.readouterr().err, "trained on 2 classes and the data has 3")


def test_a_foreign_checkpoint_on_resume(run, tmp_path, capsys):
    torch.save({"state_dict": {}}, run / "checkpoints" / "last.ckpt")
    assert train_folder(tmp_path, "--resume", "--output", str(run)) == 2
    check_one_line(capsys.readouterr().err, "does not say where training stood")


def test_a_config_that_was_spoilt(run, tmp_path, capsys):
    for text, named in (("a: [", "config.yaml"), ("[]", "holds no options"), ("epoch: 3", "did you mean 'epochs'")):
        (run / "config.yaml").write_text(text)
        assert train_folder(tmp_path, "--resume", "--output", str(run)) == 2
        check_one_line(capsys.readouterr().err, named)


FAILURES = {
    "RuntimeError: unable to allocate shared memory (shm) for file": "--workers 0",
    "RuntimeError: DataLoader worker (pid 7) is killed by signal: Killed.": "fewer --workers",
    "RuntimeError: CUDA out of memory. Tried to allocate 2 GiB": "smaller --batch-size",
    "MemoryError: ": "smaller --batch-size",
    "OSError: [Errno 28] No space left on device": "df -h",
    "MisconfigurationException: You requested gpu: [7]\nBut your machine only has: []": "You requested gpu: [7]",
}


@pytest.mark.parametrize(("failure", "named"), FAILURES.items())
def test_failures_of_the_machine(failure, named, images, tmp_path, monkeypatch, capsys):
    name, _, message = failure.partition(": ")
    kinds = {"RuntimeError": RuntimeError, "MemoryError": MemoryError, "OSError": OSError}
    kind = kinds.get(name, MisconfigurationException)

    def training_step(self, batch, batch_idx):
        raise kind(message)

    monkeypatch.setattr(Classification, "training_step", training_step)
    assert train_folder(tmp_path, "--output", str(tmp_path / "run")) == 2
    check_one_line(capsys.readouterr().err, named)


def test_a_mistake_of_ours_is_not_hidden(images, tmp_path, monkeypatch):
    def training_step(self, batch, batch_idx):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Classification, "training_step", training_step)
    with pytest.raises(RuntimeError, match="mat1"):
        train_folder(tmp_path, "--output", str(tmp_path / "run"))


def test_a_missing_package_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    for name in [
        name
        for name in sys.modules
        if name.startswith(("dropkey.runs.training", "dropkey.runs.module", "dropkey.runs.prepared", "dropkey.tasks"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["train", "--epochs", "1"]) == 2
    check_one_line(capsys.readouterr().err, "pip install 'dropkey[train]'")


def test_at_least_forty_kinds():
    singles = [name for name in globals() if name.startswith("test_a")]
    assert len(BAD_OPTIONS) + len(BAD_CONFIGS) + len(FAILURES) + len(singles) + 5 >= 40
