"""What training has in common, whatever the task: seeds, the rate, dropping until the last epochs, a finite loss."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from timm import optim
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dropkey.adapters.handle import Handle
from dropkey.data.seeds import seed_all
from dropkey.errors import DivergedError
from dropkey.runs.config import RunConfig
from dropkey.runs.learning_rate import rate_schedule
from dropkey.runs.statistics_of_norms import share_statistics

__all__ = ["VAL_SETS", "RunModule"]

VAL_SETS = ("val", "clean_train")  # in the order of RunData.val_dataloader
_NONE = 2**62
_FINITE_CHECKS = 25  # batches between looks at the loss on an accelerator, where every look waits for it


class RunModule(pl.LightningModule, ABC):
    """Base of what is trained.

    A task defines ``training_step`` (which calls ``add_up``), ``validation_step`` and ``val_measures``.

    Every training step seeds the generators by (seed, epoch, batch, rank): see ``dropkey.data.seeds``. The learning
    rate is a function of the step. So neither random states nor scheduler states belong to a checkpoint.

    Args:
        network: what is trained.
        config: options of the run.
        handle: the regularizer on the network, or None.
        running: names of what training steps add up, means of which become ``train_NAME``; the loss is the first.
    """

    uses_all_parameters = True  # in every step; where not, several processes have to look which got a gradient

    def __init__(
        self, network: nn.Module, config: RunConfig, handle: Handle | None, running: Sequence[str] = ("loss",)
    ) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.handle = handle
        self.running_names = tuple(running)
        self.running = self._nothing()  # sums over the examples of this epoch so far, on this process; then their count
        self.first_bad = torch.tensor(_NONE)  # step of the first loss that was not finite

    @abstractmethod
    def val_measures(self) -> dict[str, float]:
        """Return what validation has shown, over all processes, and begin anew: a value for each column."""

    def num_examples(self, batch: Any) -> int:
        """Return how many examples a training batch holds."""
        return len(batch[0])

    def check(self, checkpoint: Mapping[str, Any], path: Path) -> None:
        """Raise a RunError if a checkpoint was trained on data that do not fit these."""

    def build_optimizer(self) -> torch.optim.Optimizer:
        """Return AdamW with the peak rate."""
        return self._adamw()

    def _adamw(self, **arguments: Any) -> torch.optim.Optimizer:
        optimizer = optim.create_optimizer_v2(  # type: ignore[attr-defined]
            self.network,
            opt="adamw",
            lr=self.config.lr,
            weight_decay=self.config.weight_decay,
            fused=self.config.fused_steps,
            **arguments,
        )
        assert isinstance(optimizer, torch.optim.Optimizer)
        return optimizer

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer, epochs = self.build_optimizer(), self.config.epochs
        steps_per_epoch = round(self.trainer.estimated_stepping_batches / epochs)
        self.schedule = rate_schedule(optimizer, self.config, steps_per_epoch)
        return optimizer

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self.running = self._nothing()
        self._set_dropping(self.current_epoch < self.config.epochs - self.config.finetune_epochs)
        seed_all(self.config.seed, "step", self.current_epoch, batch_idx, self.global_rank)
        if self.schedule is not None:
            self.schedule.step_update(self.global_step)

    def on_train_start(self) -> None:
        copies = self.trainer.strategy.model
        if isinstance(copies, DistributedDataParallel):
            copies.broadcast_buffers = False  # before every step; see share_statistics

    def on_validation_epoch_start(self) -> None:
        if self.trainer.world_size > 1:
            share_statistics(self.network)

    def add_up(self, loss: Tensor, means: Mapping[str, Tensor], count: int, batch_idx: int) -> None:
        """Add what a step has shown to the sums of the epoch, and look whether the loss is finite.

        Args:
            loss: what is minimized.
            means: over the examples of the batch, by the names in ``running``.
            count: number of examples.
            batch_idx: of the step.
        """
        self._look_at(loss.detach(), batch_idx)
        sums = [means[name].detach().double() * count for name in self.running_names]
        self.running = self.running.to(loss.device) + torch.stack([*sums, loss.new_tensor(count, dtype=torch.float64)])
        self.log("loss", means["loss"].detach(), prog_bar=True, logger=False)

    def take_measures(self) -> dict[str, float]:
        """Return what the epoch has shown, over all processes, and begin anew."""
        *sums, count = self._summed_running()
        result = {f"train_{name}": total / count for name, total in zip(self.running_names, sums, strict=True)}
        result |= self.val_measures()
        if not all(math.isfinite(result.get(f"{name}_loss", 0.0)) for name in VAL_SETS):
            raise self.not_finite(f"after step {self.global_step - 1}")
        return result

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.require_finite()
        checkpoint["running"] = dict(zip([*self.running_names, "count"], self._summed_running(), strict=True))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        running = checkpoint["running"]
        total = torch.tensor([running[name] for name in [*self.running_names, "count"]], dtype=torch.float64)
        self.running = total if self.global_rank == 0 else torch.zeros_like(total)

    def require_finite(self) -> None:
        """Raise a DivergedError that names the step if a loss was not finite: the weights are spoilt from there on."""
        if int(self.first_bad) != _NONE:
            raise self.not_finite(f"at step {int(self.first_bad)}")

    def not_finite(self, where: str) -> DivergedError:
        """Return the error that says where the loss stopped being a number."""
        return DivergedError(
            f"the loss is not finite {where} (epoch {self.current_epoch + 1}): a lower --lr, --clip-grad 1 or "
            "--precision 32-true may help; the checkpoints keep the state before"
        )

    def _look_at(self, loss: Tensor, batch_idx: int) -> None:
        """Note the step of a loss that is not finite."""
        self.first_bad = self.first_bad.to(loss.device)
        self.first_bad = torch.where(torch.isfinite(loss), self.first_bad, self.first_bad.clamp(max=self.global_step))
        if batch_idx % (1 if loss.device.type == "cpu" else _FINITE_CHECKS) == 0:
            self.require_finite()

    def _nothing(self) -> Tensor:
        return torch.zeros(len(self.running_names) + 1, dtype=torch.float64)

    def _summed_running(self) -> list[float]:
        total = self.running.to(self.device, copy=True)
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(total)
        return [float(value) for value in total]

    def _set_dropping(self, active: bool) -> None:
        if self.handle is None or self.handle.enabled == active:
            return
        if active:
            self.handle.enable()
        else:
            self.handle.disable()
