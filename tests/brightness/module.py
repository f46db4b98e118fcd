"""What is minimized, and what is measured."""

from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric

from brightness.config import BrightnessConfig
from dropkey.adapters.handle import Handle
from dropkey.runs.module import VAL_SETS, RunModule

GRAY_LEVELS = 255


class Brightness(RunModule):
    config: BrightnessConfig

    def __init__(self, network: nn.Module, config: BrightnessConfig, handle: Handle | None) -> None:
        super().__init__(network, config, handle)
        self.errors = nn.ModuleDict({f"{name}_error": MeanMetric() for name in VAL_SETS})

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, levels = batch
        loss = F.huber_loss(self.network(images).squeeze(-1), levels, delta=self.config.huber_delta)
        self.add_up(loss, {"loss": loss}, len(levels), batch_idx)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        images, levels = batch
        errors = (self.network(images).squeeze(-1) - levels).abs() * GRAY_LEVELS
        self.errors[f"{VAL_SETS[dataloader_idx]}_error"].update(errors)

    def val_measures(self) -> dict[str, float]:
        result = {name: float(metric.compute()) for name, metric in self.errors.items()}
        for metric in self.errors.values():
            metric.reset()
        return result
