"""Good defaults for each source of images.

Measured here: digits. The others follow what is usual for their size (imagenet: DeiT, Touvron et al. 2021, table 9,
per process instead of per 1,024 images); treat them as a start.
"""

import os
from collections.abc import Mapping
from typing import Any

from dropkey.data.sources import check_source_name
from dropkey.models.timm_network import own_img_size
from dropkey.runs.config import short_warmup

__all__ = ["recipe"]

_DOWNLOADED = {"data_dir": "data"}
_CIFAR = {
    "model": "vit_mini_patch4_32",
    **_DOWNLOADED,
    "epochs": 100,
    "batch_size": 128,
    "warmup_epochs": 5,
    "label_smoothing": 0.1,
    "cutmix": 1.0,
}
_RECIPES: dict[str, dict[str, Any]] = {
    "digits": {"model": "vit_mini_patch2_8", "lr": 3e-3},
    "folder": {
        "model": "vit_mini_patch4_32",
        "epochs": 30,
        "warmup_epochs": 3,
        "label_smoothing": 0.1,
        "clip_grad": 1.0,
    },
    "fashion_mnist": {
        "model": "vit_mini_patch4_28",
        **_DOWNLOADED,
        "epochs": 20,
        "batch_size": 128,
        "random_erasing": 0.1,
    },
    "cifar10": {**_CIFAR, "rand_augment": 5},
    "cifar100": {**_CIFAR, "rand_augment": 5},
    "imagenet": {
        "model": "deit_small_patch16_224",
        "epochs": 300,
        "batch_size": 128,
        "lr": 5e-4,
        "warmup_epochs": 5,
        "label_smoothing": 0.1,
        "drop_path": 0.1,
        "mixup": 0.8,
        "cutmix": 1.0,
        "rand_augment": 9,
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
    "rand_augment": 0,
}


def recipe(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults for what is given; fine-tuning has a recipe of its own.

    Raises:
        ArgumentError: unknown data or an unknown model.
    """
    data = given.get("data", "digits")
    values = {"warmup_epochs": 2, **_RECIPES[check_source_name(data)], "workers": _workers(data)}
    if given.get("pretrained") or given.get("weights"):
        values |= _FINE_TUNING
    if "epochs" in given:
        values["warmup_epochs"] = short_warmup(given["epochs"], values["warmup_epochs"])
    return {**values, "img_size": own_img_size(given.get("model", values["model"]))}


def _workers(data: str) -> int:
    return 0 if data == "digits" else min(4, max(0, (os.cpu_count() or 1) - 1))
