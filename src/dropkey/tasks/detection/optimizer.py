"""AdamW with a rate of its own for the backbone."""

import torch
from torch import nn

from dropkey.errors import ArgumentError
from dropkey.tasks.detection.config import DetectorConfig

__all__ = ["detection_optimizer"]


def detection_optimizer(network: nn.Module, config: DetectorConfig) -> torch.optim.Optimizer:
    """Return AdamW; weight decay leaves out norms and biases, as in every task.

    Raises:
        ArgumentError: a rate for the backbone of a model that has none.
    """
    named = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    if config.backbone_lr and not any(_is_backbone(name) for name, _ in named):
        raise ArgumentError(f"--backbone-lr: {config.model} has no backbone: leave it out")
    groups = []
    for in_backbone in (False, True):
        for decays in (True, False):
            chosen = [p for name, p in named if _is_backbone(name) is in_backbone and (p.ndim > 1) is decays]
            if chosen:
                rate = config.backbone_lr or config.lr if in_backbone else config.lr
                groups.append({"params": chosen, "lr": rate, "weight_decay": config.weight_decay if decays else 0.0})
    return torch.optim.AdamW(groups, lr=config.lr, fused=config.fused_steps)


def _is_backbone(name: str) -> bool:
    return "backbone" in name.split(".")
