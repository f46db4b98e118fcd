"""Good defaults for each source of images with boxes.

Measured here: digit_scenes. The others are a start for a few hundred images and a detector that starts from nothing.
"""

import os
from collections.abc import Mapping
from typing import Any

from dropkey.data.detection_sources import check_detection_source
from dropkey.runs.config import short_warmup

__all__ = ["recipe"]

_SMALL = {"lr_schedule": "wsd", "weight_decay": 1e-4, "clip_grad": 1.0, "batch_size": 16, "warmup_epochs": 1}
_PHOTOGRAPHS = {**_SMALL, "epochs": 60, "img_size": "256", "flip": 0.5, "photometric": 0.5}
_RECIPES: dict[str, dict[str, Any]] = {
    "digit_scenes": {**_SMALL, "epochs": 4, "img_size": "128", "batch_size": 8, "warmup_epochs": 0.5},
    "coco": _PHOTOGRAPHS,
    "yolo": _PHOTOGRAPHS,
}
_RATES = {"d_fine_mini": 2e-3, "detr_mini": 5e-4, "yolos_mini": 5e-4}
_PUBLISHED = 1e-4  # of DETR and most of its successors


def recipe(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults for what is given.

    Raises:
        ArgumentError: unknown data.
    """
    data = check_detection_source(given.get("data", "digit_scenes"))
    values = {"model": "d_fine_mini", **_RECIPES[data], "workers": _workers(data)}
    values["lr"] = _RATES.get(given.get("model", values["model"]), _PUBLISHED)
    if given.get("pretrained") or given.get("weights"):
        values["lr"] = min(values["lr"], _PUBLISHED)
    if "epochs" in given:
        values["warmup_epochs"] = short_warmup(given["epochs"], values["warmup_epochs"])
    return values


def _workers(data: str) -> int:
    return 0 if data == "digit_scenes" else min(4, max(0, (os.cpu_count() or 1) - 1))
