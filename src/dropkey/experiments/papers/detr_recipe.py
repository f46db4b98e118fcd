"""DETR's published recipe, with half of its 300 epochs, as QPIC and DropKey have it."""

from typing import Any

__all__ = ["DETR_RECIPE"]

# Images at one size, where DETR draws one of several; examples/ has the same as files for ``dropkey train``.
DETR_RECIPE: dict[str, Any] = {
    "model": "detr_r50",
    "img_size": "800x1333",
    "flip": 0.5,
    "epochs": 150,
    "batch_size": 16,
    "lr": 1e-4,
    "backbone_lr": 1e-5,
    "warmup_epochs": 0,
    "lr_schedule": "step",
    "lr_drop_epoch": 100,
    "weight_decay": 1e-4,
    "clip_grad": 0.1,
}
