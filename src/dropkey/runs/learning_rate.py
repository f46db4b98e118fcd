"""The learning rate as a function of the step: it rises in the warm-up, and then falls in one of three ways."""

from typing import Any, Literal

from timm import scheduler
from timm.scheduler.scheduler import Scheduler
from torch.optim import Optimizer

from dropkey.runs.config import OptimizationOptions

__all__ = ["rate_schedule"]

_STABLE = 0.75  # share of training at the peak rate before "wsd" falls
_FLOOR = 0.01  # of the peak rate
_STEP = 0.1


def rate_schedule(optimizer: Optimizer, config: OptimizationOptions, steps_per_epoch: int) -> Any:
    """Return what sets the rate of every group at ``step_update(step)``; a group's own rate is its peak."""
    warmup = config.warmup_epochs if config.warmup_epochs < config.epochs else config.epochs - 1
    if config.lr_schedule != "cosine":
        return _Falling(optimizer, config, round(warmup * steps_per_epoch), steps_per_epoch)
    return scheduler.create_scheduler_v2(  # type: ignore[attr-defined]
        optimizer,
        sched="cosine",
        num_epochs=config.epochs,
        warmup_epochs=warmup,  # type: ignore[arg-type]
        warmup_lr=config.lr / 100,
        min_lr=config.lr / 100,
        step_on_epochs=False,
        updates_per_epoch=steps_per_epoch,
    )[0]


class _Falling(Scheduler):
    """Multiplies the peak rate by a factor of the step."""

    def __init__(self, optimizer: Optimizer, config: OptimizationOptions, warmup: int, steps_per_epoch: int) -> None:
        super().__init__(optimizer, "lr", t_in_epochs=False)
        self.warmup = warmup
        self.total = config.epochs * steps_per_epoch
        self.drop = config.lr_drop_epoch * steps_per_epoch or round(self.total * 2 / 3)
        self.kind: Literal["wsd", "step"] = "wsd" if config.lr_schedule == "wsd" else "step"

    def _get_lr(self, step: int) -> list[float]:
        return [base * self.factor(step) for base in self.base_values]

    def factor(self, step: int) -> float:
        """Return the share of the peak rate at a step."""
        if step < self.warmup:
            return _FLOOR + (1 - _FLOOR) * step / self.warmup
        if self.kind == "step":
            return 1.0 if step < self.drop else _STEP
        stable = _STABLE * self.total
        fallen = max(0.0, step - stable) / (self.total - stable)
        return 1 - (1 - _FLOOR) * fallen
