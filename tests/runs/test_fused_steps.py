"""AdamW takes its step in one call, except where mixed precision clips gradients in between."""

import pytest
import torch

from dropkey.cli import main


@pytest.fixture
def steps(monkeypatch):
    """Note of each optimizer step whether it was fused."""
    seen = []

    def step(self, *args, __step=torch.optim.AdamW.step, **kwargs):
        seen.extend(group["fused"] for group in self.param_groups)
        return __step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    return seen


@pytest.mark.parametrize(("precision", "fused"), [("32-true", True), ("bf16-mixed", False)])
@pytest.mark.parametrize("more", [[], ["--layer-decay", "0.8"]])
def test_steps_of_a_run(precision, fused, more, steps, tmp_path):
    few = ["--epochs", "1", "--train-per-class", "5", "--batch-size", "25"]
    options = [*few, "--clip-grad", "1", "--precision", precision, *more]
    assert main(["train", *options, "--output", str(tmp_path / "run")]) == 0
    assert steps
    assert set(steps) == {fused}
