"""Every option of a recipe acts, and a run with all of them resumes exactly."""

import csv
import dataclasses
import json
import random

import numpy as np
import pytest
import torch
from PIL import Image

from dropkey.cli import main
from dropkey.data.augmentation import Augmentation, ImageFormat, train_transform
from dropkey.runs.checkpoints import Checkpoints, read_checkpoint
from dropkey.tasks.classification import module
from dropkey.tasks.classification.task import TASK

pytestmark = pytest.mark.usefixtures("few_digits")

PLAIN = ["train", "--epochs", "2", "--warmup-epochs", "1", "--batch-size", "40"]
OPTIONS = {
    "mixup": "0.8",
    "cutmix": "1.0",
    "rand-augment": "9",
    "color-jitter": "0.4",
    "random-erasing": "0.5",
    "label-smoothing": "0.1",
    "drop-path": "0.2",
    "weight-decay": "0.5",
    "layer-decay": "0.5",
    "clip-grad": "0.1",
    "accumulate": "2",
    "ema": "0.5",
    "precision": "bf16-mixed",
    "re-attention": "2",
    "map-similarity-loss": "1.0",
}


def column(root, name):
    rows = csv.DictReader((root / "metrics.csv").read_text().splitlines())
    return [row[name] for row in rows]


def val_losses(root):
    return column(root, "val_loss")


@pytest.fixture(scope="module")
def plain(tmp_path_factory, few_digits):
    root = tmp_path_factory.mktemp("runs") / "plain"
    assert main([*PLAIN, "--output", str(root)]) == 0
    return val_losses(root)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_acts(option, plain, tmp_path):
    assert main([*PLAIN, f"--{option}", OPTIONS[option], "--output", str(tmp_path / "run")]) == 0
    assert val_losses(tmp_path / "run")[-1] != plain[-1]


class CrashError(Exception):
    pass


@pytest.mark.parametrize("crash_batch", [0, 1, 2])
def test_everything_on_resumes_exactly(crash_batch, tmp_path, monkeypatch):
    command = [*PLAIN, *[part for name, value in OPTIONS.items() for part in (f"--{name}", value)]]
    assert main([*command, "--output", str(tmp_path / "alone")]) == 0

    def on_train_batch_start(self, trainer, pl_module, data, batch_idx):
        self.seconds = 0.0  # save whenever it is allowed
        if (trainer.current_epoch, batch_idx) == (1, crash_batch):
            raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_train_batch_start", on_train_batch_start)
        with pytest.raises(CrashError):
            main([*command, "--output", str(tmp_path / "run")])
    assert main(["train", "--resume", "--output", str(tmp_path / "run")]) == 0
    assert val_losses(tmp_path / "run") == val_losses(tmp_path / "alone")


def test_averaged_weights_are_the_ones_saved_and_evaluated(tmp_path):
    assert main([*PLAIN, "--ema", "0.5", "--output", str(tmp_path / "run")]) == 0
    checkpoint = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    averaged, current = checkpoint["state_dict"], checkpoint["current_model_state"]
    assert any(not torch.equal(averaged[key], current[key]) for key in averaged)


def test_no_decay_on_norms_and_biases(tmp_path, monkeypatch):
    seen = {}

    def on_train_start(self, trainer, pl_module):
        names = {parameter: name for name, parameter in pl_module.network.named_parameters()}
        for group in trainer.optimizers[0].param_groups:
            seen.update({names[parameter]: group["weight_decay"] for parameter in group["params"]})

    monkeypatch.setattr(Checkpoints, "on_train_start", on_train_start)
    assert main([*PLAIN, "--epochs", "1", "--warmup-epochs", "0", "--output", str(tmp_path / "run")]) == 0
    decayed = {name for name, decay in seen.items() if decay > 0}
    assert "blocks.0.attn.qkv.weight" in decayed
    assert not any("norm" in name or name.endswith("bias") or name == "pos_embed" for name in decayed)
    assert {name for name in seen if name.endswith("weight") and "norm" not in name} == decayed


def test_recipe_fills_only_what_nobody_said():
    config = TASK.resolve({"data": "imagenet", "mixup": 0.0, "lr": 0.1})
    assert (config.mixup, config.lr, config.cutmix, config.epochs) == (0.0, 0.1, 1.0, 300)
    assert TASK.resolve({"weights": "w.pth"}).layer_decay == 0.75
    assert TASK.resolve({"epochs": 1}).warmup_epochs == 0
    assert TASK.resolve(dataclasses.asdict(config)) == config


def test_the_strongest_augmentation_keeps_every_image():
    augmentation = Augmentation(rand_augment=10)
    transform = train_transform(ImageFormat(8), augmentation)
    image = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    for seed in range(300):
        random.seed(seed)
        np.random.seed(seed)
        assert transform(image).isfinite().all()


def test_a_config_holds_no_none():
    assert None not in dataclasses.asdict(TASK.resolve({})).values()


def test_summary_of_an_average_is_of_the_average(tmp_path):
    assert main([*PLAIN, "--ema", "0.99", "--output", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["final_val_accuracy"] < 0.5  # the average hardly moves in six steps


@pytest.mark.parametrize("options", [[], ["--regularizer", "none"], ["--re-attention", "all"]])
def test_maps_grow_less_alike_under_the_loss_on_them(options, tmp_path):
    similarities = []
    for weight in ("1e-9", "3"):
        root = tmp_path / weight
        command = [*PLAIN, "--epochs", "3", "--lr", "1e-2", "--map-similarity-loss", weight, *options]
        assert main([*command, "--output", str(root)]) == 0
        similarities.append([float(value) for value in column(root, "map_similarity")])
    (*_, alone), (*_, with_loss) = similarities
    assert with_loss < alone - 0.3


def test_without_weight_nobody_listens(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "attention_maps", None)
    assert main([*PLAIN, "--map-similarity-loss", "0", "--output", str(tmp_path / "run")]) == 0
    assert val_losses(tmp_path / "run") == plain
    assert "map_similarity" not in (tmp_path / "run" / "metrics.csv").read_text()
