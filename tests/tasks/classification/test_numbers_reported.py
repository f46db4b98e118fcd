"""The numbers that a user reads: which checkpoint, which epoch is best, calibration, spreads where right and wrong."""

import json

import numpy as np
import pytest
import torch
from cli.test_errors import image_tree
from torch import nn

from dropkey.alignment import MonteCarlo
from dropkey.cli import main
from dropkey.philox import draw_seed
from dropkey.runs.checkpoints import read_checkpoint
from dropkey.runs.measure import Measure
from dropkey.runs.record import EpochRecord
from dropkey.tasks.classification import measuring
from dropkey.tasks.classification.task import TASK


def test_last_is_last_and_best_is_best(tmp_path, monkeypatch):
    """The last one is made to answer "cat", the best one "dog"; there are two cats for each dog."""
    monkeypatch.chdir(tmp_path)
    image_tree(tmp_path / "images", per_class=4)
    for count in (2, 3):
        (tmp_path / "images" / "val" / "dog" / f"{count}.png").unlink()
    tiny = ["--model", "vit_mini_patch2_8", "--model-kwargs", "depth=1", "embed_dim=8", "num_heads=1", "--workers", "0"]
    data = ["--data", "folder", "--data-dir", "images", "--epochs", "1", "--batch-size", "4"]
    assert main(["train", *tiny, *data, "--output", "run"]) == 0
    for which, answer in (("last", 0), ("best", 1)):
        path = tmp_path / "run" / "checkpoints" / f"{which}.ckpt"
        content = read_checkpoint(path)
        content["state_dict"]["network.head.weight"].zero_()
        content["state_dict"]["network.head.bias"].copy_(torch.nn.functional.one_hot(torch.tensor(answer), 2) * 9.0)
        torch.save(content, path)
    for which, accuracy in (("last", 4 / 6), ("best", 2 / 6)):
        assert main(["evaluate", "run", "--checkpoint", which, "--output", "e.json"]) == 0
        assert json.loads((tmp_path / "e.json").read_text())["accuracy"] == pytest.approx(accuracy)
    assert main(["evaluate", "run", "--output", "e.json"]) == 0
    assert json.loads((tmp_path / "e.json").read_text())["accuracy"] == pytest.approx(4 / 6)


def record(measure, rows):
    kept = EpochRecord(None, measure, print)
    kept.rows = [{"epoch": epoch, **row} for epoch, row in enumerate(rows)]
    return kept


def test_the_best_epoch_is_the_first_of_the_best_headline():
    """Not that of the lowest loss, and not the last of equals."""
    accuracy = [0.5, 0.9, 0.7, 0.9, 0.8]
    loss = [0.9, 0.8, 0.1, 0.5, 0.7]
    rows = [{"val_accuracy": a, "val_loss": one} for a, one in zip(accuracy, loss, strict=True)]
    headline = TASK.measures[0]
    assert (headline.name, headline.better) == ("accuracy", "higher")
    assert record(headline, rows).best["epoch"] == 1
    error = Measure("error", "mm", "lower")
    assert record(error, [{"val_error": value} for value in (3.0, 1.0, 2.0, 1.0)]).best["epoch"] == 1


def expected_calibration_error(probabilities, labels, bins=15):
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    places = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    chosen = [places == place for place in range(bins) if (places == place).any()]
    return sum(c.mean() * abs(right[c].mean() - confidence[c].mean()) for c in chosen)


class Replies(nn.Module):
    """A network whose logits are its inputs."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, logits):
        return logits * self.scale


def test_calibration_error_is_that_of_fifteen_bins():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(400, 3, generator=generator)
    labels = torch.randint(3, (400,), generator=generator)
    unsure = logits.softmax(1).amax(1) < 0.7
    labels[unsure] = logits[unsure].argmax(1)  # too sure above, too unsure below: a single bin sees neither
    found = measuring.evaluate(Replies(), [(logits[:150], labels[:150]), (logits[150:], labels[150:])], 3)
    wanted = expected_calibration_error(logits.double().softmax(1).numpy(), labels.numpy())
    assert found.calibration_error == pytest.approx(wanted, abs=1e-5)
    one_bin = expected_calibration_error(logits.double().softmax(1).numpy(), labels.numpy(), bins=1)
    assert abs(one_bin - wanted) > 1e-3


def test_spreads_belong_to_right_and_wrong_answers(monkeypatch):
    mean = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    std = torch.tensor([[0.01, 0.5], [0.5, 0.03], [0.4, 0.5]])
    monkeypatch.setattr(measuring, "monte_carlo", lambda network, images, samples: MonteCarlo(mean, std))
    labels = torch.tensor([0, 1, 1])  # right, right, wrong
    measures, spread = measuring.evaluate_monte_carlo(Replies(), [(torch.zeros(3, 2), labels)], 2, samples=2, seed=0)
    assert spread["right"] == pytest.approx((0.01 + 0.03) / 2)
    assert spread["wrong"] == pytest.approx(0.4)
    assert measures.accuracy == pytest.approx(2 / 3)


def test_implicit_seeds_have_sixty_four_bits():
    torch.manual_seed(0)
    seeds = [int(draw_seed(torch.device("cpu"))) % 2**64 for _ in range(200)]
    assert len(set(seeds)) == 200
    ones = np.array([[seed >> bit & 1 for bit in range(64)] for seed in seeds]).mean(0)
    assert ones.min() > 0.3
    assert ones.max() < 0.7
