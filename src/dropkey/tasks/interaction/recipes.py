"""Good defaults for each source of images with pairs.

Measured here: digit_pairs. The others follow QPIC's published recipe.
"""

import os
from collections.abc import Mapping
from typing import Any

from dropkey.data.pair_sources import check_pair_source
from dropkey.runs.config import short_warmup

__all__ = ["recipe"]

_SMALL = {"lr_schedule": "wsd", "weight_decay": 1e-4, "clip_grad": 1.0, "batch_size": 16, "warmup_epochs": 1}
_PHOTOGRAPHS = {**_SMALL, "epochs": 60, "img_size": "256", "flip": 0.5, "photometric": 0.5}
_RECIPES: dict[str, dict[str, Any]] = {
    "digit_pairs": {**_SMALL, "epochs": 5, "img_size": "128", "batch_size": 8, "warmup_epochs": 0.5},
    "hico_det": _PHOTOGRAPHS,
    "vcoco": _PHOTOGRAPHS,
}
_EPOCHS_OF_QPIC = 7  # on digit_pairs: its heads learn later
_RATES = {"d_fine_mini": 1.5e-3, "detr_mini": 5e-4}
_PUBLISHED = 1e-4  # of QPIC


def recipe(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults for what is given.

    Raises:
        ArgumentError: unknown data.
    """
    data = check_pair_source(given.get("data", "digit_pairs"))
    model = given.get("model", "d_fine_mini")
    values = {"model": model, "heads": "qpic" if model == "detr_mini" else "pair", **_RECIPES[data]}
    if data == "digit_pairs" and given.get("heads", values["heads"]) == "qpic":
        values["epochs"] = _EPOCHS_OF_QPIC
    values["workers"] = _workers(data)
    values["lr"] = _RATES.get(model, _PUBLISHED)
    if given.get("pretrained") or given.get("weights"):
        values["lr"] = min(values["lr"], _PUBLISHED)
    if "epochs" in given:
        values["warmup_epochs"] = short_warmup(given["epochs"], values["warmup_epochs"])
    return values


def _workers(data: str) -> int:
    return 0 if data == "digit_pairs" else min(4, max(0, (os.cpu_count() or 1) - 1))
