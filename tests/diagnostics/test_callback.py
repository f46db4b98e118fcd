"""The Lightning callback: when it looks, what it leaves, and that training does not notice."""

import csv
import subprocess
import sys

import lightning.pytorch as pl
import pytest
import torch
from conftest import tiny_vit
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import dropkey
from dropkey.diagnostics.callback import AttentionCallback

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),  # Lightning on a newer torch
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:You defined a .validation_step. but have no"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated"),
]


class Classifier(pl.LightningModule):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def validation_step(self, batch, batch_idx):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def loader():
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(8, 3, 32, 32, generator=generator), torch.arange(8) % 5
    return DataLoader(TensorDataset(images, labels), batch_size=4)


def fit(tmp_path, *callbacks, network=None, epochs=4, validate=True, **options):
    torch.manual_seed(0)
    network = tiny_vit(depth=2) if network is None else network
    if network.__class__.__name__ == "VisionTransformer":
        dropkey.apply(network, dropkey.DropKey(0.3, schedule="constant"))
    module = Classifier(network)
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=list(callbacks), default_root_dir=tmp_path, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=1,
        **options,
    )  # fmt: skip
    trainer.fit(module, loader(), loader() if validate else None)
    return module


def rows(folder):
    with (folder / "measures.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("every", "epochs", "looked"),
    [(None, 4, [0, 1, 2, 3]), (None, 11, [2, 5, 8, 10]), (3, 7, [2, 5, 6]), (1, 2, [0, 1]), (9, 2, [1])],
)
def test_when_it_looks(every, epochs, looked, tmp_path):
    fit(tmp_path, AttentionCallback(every), epochs=epochs)
    folder = tmp_path / "attention"
    assert sorted({int(row["epoch"]) for row in rows(folder)}) == looked
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["measures.csv", *(f"epoch-{epoch:04d}.{kind}" for epoch in looked for kind in ("png", "report"))]
    )


def test_training_does_not_notice(tmp_path):
    plain = fit(tmp_path)
    looked_at = fit(tmp_path, AttentionCallback(1))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), looked_at.parameters(), strict=True))


def test_what_it_writes(tmp_path):
    images = torch.randn(3, 3, 32, 32)
    callback = AttentionCallback(2, images=images, network=lambda module: module.network, folder=tmp_path / "seen")
    module = fit(tmp_path, callback, epochs=2)
    report = dropkey.diagnose(module.network, images)
    for place, row in enumerate(rows(tmp_path / "seen")):
        assert (row["epoch"], row["site"]) == ("1", f"blocks.{place}.attn")
        # The last step comes after the last look.
        assert abs(float(row["entropy"]) - report.measure("entropy")[place]) < 0.1
    with Image.open(tmp_path / "seen" / "epoch-0001.png") as picture:
        assert picture.size == (4 * 96 + 3 * 4, 3 * 96 + 2 * 4)  # image, two blocks and rollout of three images
    assert callback.seconds > 0


def test_tensorboard(tmp_path):
    module = Classifier(tiny_vit(depth=2))
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[AttentionCallback()], default_root_dir=tmp_path,
        logger=TensorBoardLogger(tmp_path, name="", version=""), enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader(), loader())
    events = EventAccumulator(str(tmp_path)).Reload()
    assert "attention/peak/network.blocks.1.attn" in events.Tags()["scalars"]
    assert events.Tags()["images"] == ["attention"]


def test_it_goes_on_after_a_restart():
    callback = AttentionCallback(2)
    callback.rows, callback._next, callback.seconds = [{"epoch": 1}], 3, 1.5
    other = AttentionCallback(2)
    other.load_state_dict(callback.state_dict())
    assert (other.rows, other._next, other.seconds) == ([{"epoch": 1}], 3, 1.5)


def test_what_it_refuses(tmp_path):
    with pytest.raises(dropkey.ArgumentError, match="must be 1 or more, got 0 and 2"):
        AttentionCallback(0)
    with pytest.raises(dropkey.SiteError, match="looks at the start of a validation, and this trainer has none"):
        fit(tmp_path, AttentionCallback(), validate=False)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
    with pytest.raises(dropkey.SiteError, match="found no supported attention module in this Classifier"):
        fit(tmp_path, AttentionCallback(), network=flat)
    sequences = AttentionCallback()
    with pytest.raises(dropkey.ArgumentError, match=r"no images .* in the validation batch: pass images to"):
        sequences.on_validation_batch_start(*_at_last_epoch(), [torch.randn(2, 5)], 0)


def _at_last_epoch():
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.state.fn = "fit"
    return trainer, Classifier(tiny_vit(depth=1))


def test_the_command_line(few_digits, tmp_path, capsys):
    from dropkey.cli import main

    results = []
    for every in ("0", "2"):
        run = tmp_path / every
        words = f"train --epochs 4 --regularizer dropkey --attention-every {every} --output {run}"
        assert main(words.split()) == 0
        with (run / "metrics.csv").open() as file:
            results.append([row["val_loss"] for row in csv.DictReader(file)])
    assert results[0] == results[1]
    assert not (tmp_path / "0" / "attention").exists()
    assert len(list((tmp_path / "2" / "attention").glob("*.png"))) == 2
    assert "looks at attention took" in capsys.readouterr().out
    assert main(f"train --attention-every 1 --strategy fsdp --devices 2 --output {tmp_path / 'x'}".split()) == 2
    assert "--attention-every runs whole models and --strategy fsdp shards them" in capsys.readouterr().err


@pytest.mark.slow
def test_it_costs_little(tmp_path):
    """Five looks in the default run: below 3% of its time."""
    words = f"train --regularizer dropkey --attention-every 3 --output {tmp_path / 'run'}"
    done = subprocess.run([sys.executable, "-m", "dropkey", *words.split()], capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("looks at attention")]
    print(line)
    assert float(line.split("s, ")[1].split("%")[0]) < 3
