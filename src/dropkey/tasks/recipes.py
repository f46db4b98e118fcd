"""Good defaults for each source of images: what an option is where nobody says.

Measured here: digits. The others follow what is usual for their size (imagenet: DeiT, Touvron et al. 2021, table 9,
per process instead of per 1,024 images); treat them as a start.
"""

import dataclasses
import math
from typing import Any, TypeVar

from dropkey.tasks.config import TrainConfig

__all__ = ["filled", "with_recipe"]

T = TypeVar("T")

_PLAIN: dict[str, Any] = {
    "epochs": 15,
    "batch_size": 64,
    "lr": 3e-3,
    "warmup_epochs": 2,
    "weight_decay": 0.05,
    "layer_decay": 1.0,
    "clip_grad": 0.0,
    "ema": 0.0,
    "drop_path": 0.0,
    "label_smoothing": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "rand_augment": 0.0,
    "color_jitter": 0.0,
    "random_erasing": 0.0,
}
_CIFAR = {"epochs": 100, "batch_size": 128, "lr": 1e-3, "warmup_epochs": 5, "label_smoothing": 0.1, "cutmix": 1.0}
_RECIPES: dict[str, dict[str, Any]] = {
    "digits": {},
    "folder": {"epochs": 30, "lr": 1e-3, "warmup_epochs": 3, "label_smoothing": 0.1, "clip_grad": 1.0},
    "fashion_mnist": {"epochs": 20, "batch_size": 128, "lr": 1e-3, "random_erasing": 0.1},
    "cifar10": {**_CIFAR, "rand_augment": 5.0},
    "cifar100": {**_CIFAR, "rand_augment": 5.0},
    "imagenet": {
        "epochs": 300,
        "batch_size": 128,
        "lr": 5e-4,
        "warmup_epochs": 5,
        "label_smoothing": 0.1,
        "drop_path": 0.1,
        "mixup": 0.8,
        "cutmix": 1.0,
        "rand_augment": 9.0,
        "random_erasing": 0.25,
    },
}
# Weights that were trained before change little, and least in the first blocks.
_FINE_TUNING = {
    "epochs": 10,
    "lr": 1e-4,
    "warmup_epochs": 1,
    "layer_decay": 0.75,
    "clip_grad": 1.0,
    "drop_path": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "rand_augment": 0.0,
}


def with_recipe(config: TrainConfig) -> TrainConfig:
    """Return the config with the recipe of its data wherever an option is None; fine-tuning has a recipe of its own."""
    recipe = {**_PLAIN, **_RECIPES[config.data]}
    if config.pretrained or config.weights:
        recipe |= _FINE_TUNING
    if config.epochs is not None and config.warmup_epochs is None:
        recipe["warmup_epochs"] = min(recipe["warmup_epochs"], math.ceil(config.epochs / 4))
    unsaid = {name: value for name, value in recipe.items() if getattr(config, name) is None}
    return dataclasses.replace(config, **unsaid)


def filled(value: T | None) -> T:
    """Return the value of an option that the recipe has filled in."""
    assert value is not None
    return value
