"""The learning rate as a function of the step."""

import pytest
import torch

from dropkey.runs.config import OptimizationOptions
from dropkey.runs.learning_rate import rate_schedule


@pytest.mark.parametrize("kind", ["cosine", "wsd", "step"])
@pytest.mark.parametrize(("warmup", "steps"), [(0.5, 5), (1, 10), (1.2, 12)])
def test_the_rate_rises_for_parts_of_an_epoch(kind, warmup, steps):
    config = OptimizationOptions(epochs=4, lr=1.0, warmup_epochs=warmup, lr_schedule=kind)
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = rate_schedule(optimizer, config, steps_per_epoch=10)
    rates = []
    for step in range(steps + 1):
        schedule.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] == pytest.approx(0.01)
    assert all(rates[i + 1] - rates[i] == pytest.approx(0.99 / steps) for i in range(steps - 1))
    assert rates[-1] == pytest.approx(1.0, abs=0.25 if kind == "cosine" else 1e-9)  # a cosine is counted from step 0
