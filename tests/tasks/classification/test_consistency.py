"""Two passes that should agree: the formula, the training step written out, and who pays for it."""

import csv

import numpy as np
import pytest
import torch
from conftest import tiny_vit

import dropkey
from dropkey.cli import main
from dropkey.tasks.classification.config import ClassificationConfig
from dropkey.tasks.classification.consistency import doubled, inconsistency
from dropkey.tasks.classification.module import Classification


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def kl(one, other):
    """Of each row, from probabilities written out."""
    return sum(np.exp(a) * (a - b) for a, b in zip(one.T, other.T, strict=True))


def test_formula():
    logits = 3 * np.random.default_rng(0).normal(size=(10, 7))
    one, other = log_softmax(logits[:5]), log_softmax(logits[5:])
    want = (kl(one, other) + kl(other, one)).mean() / 2
    np.testing.assert_allclose(inconsistency(torch.tensor(logits)).item(), want, rtol=1e-5)
    assert want > 0.1


def test_passes_that_agree_cost_nothing():
    logits = torch.randn(4, 7)
    assert inconsistency(torch.cat([logits, logits])).item() == 0


def test_gradients_reach_both_passes():
    logits = torch.randn(6, 7, requires_grad=True)
    inconsistency(logits).backward()
    assert (logits.grad.abs().sum(-1) > 0).all()


@pytest.mark.parametrize("pattern", ["element", "column", "token"])
def test_both_halves_of_a_doubled_batch_draw_by_themselves(pattern, images):
    model = tiny_vit().train()
    dropkey.apply(model, dropkey.DropKey(0.5, schedule="constant", pattern=pattern))
    (twice,) = doubled(images)
    one, other = model(twice).chunk(2)
    assert not torch.allclose(one, other)
    (twice,) = doubled(images)
    one, other = model.eval()(twice).chunk(2)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("mixup", [0.0, 0.8])
def test_the_training_step_written_out(mixup, images):
    config = ClassificationConfig(consistency=0.7, label_smoothing=0.0, batch_size=2, mixup=mixup)
    network = tiny_vit().train()
    handle = dropkey.apply(network, dropkey.DropKey(0.5))
    module = Classification(network, config, list("abcde"), handle)
    module.log = module.require_finite = module._look_at = lambda *args, **kwargs: None  # they want a trainer
    labels = torch.tensor([1, 4])
    seen = []
    network.register_forward_hook(lambda module, args, out: seen.append(out.detach().double().numpy()))
    np.random.seed(0)
    torch.manual_seed(3)
    loss = module.training_step((images.clone(), labels), 0).item()
    (logits,) = seen
    targets = np.eye(5)[labels]
    if mixup:
        np.random.seed(0)
        targets = module.mixup(images.clone(), labels)[1].numpy()
    logs = log_softmax(logits)
    assert logs.shape == (4, 5)
    cross = -(np.concatenate([targets, targets]) * logs).sum(-1).mean()
    differ = (kl(logs[:2], logs[2:]) + kl(logs[2:], logs[:2])).mean() / 2
    assert differ > 1e-4
    np.testing.assert_allclose(loss, cross + 0.7 * differ, rtol=1e-5)


@pytest.mark.usefixtures("few_digits")
def test_in_a_comparison_only_arms_that_draw_pay_for_it(tmp_path):
    arms = ["none", "dropkey", "dropkey:consistency=0"]
    shared = ["--consistency", "1", "--epochs", "1", "--seeds", "1", "--output", str(tmp_path)]
    assert main(["compare", "--arms", *arms, *shared]) == 0
    columns = {}
    for folder in tmp_path.iterdir():
        if folder.is_dir():
            with (folder / "seed-0" / "metrics.csv").open() as file:
                columns[folder.name] = next(csv.reader(file))
            config = (folder / "seed-0" / "config.yaml").read_text()
            assert ("consistency" in config) == ("none" not in folder.name)
    assert {name for name, names in columns.items() if "train_inconsistency" in names} == {"dropkey"}
