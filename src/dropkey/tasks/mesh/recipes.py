"""Good defaults for each model and source.

Tried here: metro_mini and regression_mini on sampled bodies. Those of the large models are the published ones (METRO,
section 4.1 and its code): Adam with 1e-4 is AdamW without decay.
"""

import os
from collections.abc import Mapping
from typing import Any

from dropkey.runs.config import short_warmup
from dropkey.tasks.mesh.presets import MESH_TRANSFORMERS, named_preset
from dropkey.tasks.mesh.sources import check_source_name

__all__ = ["recipe"]

_TRIED = ("metro_mini", "regression_mini")
_MINI = {
    "epochs": 5,
    "batch_size": 16,
    "lr": 3e-3,
    "weight_decay": 0.01,
    "warmup_epochs": 0,
    "lr_schedule": "wsd",
    "clip_grad": 1.0,
    "workers": 0,
}
_PUBLISHED = {
    "epochs": 200,
    "batch_size": 32,
    "lr": 1e-4,
    "weight_decay": 0.0,
    "warmup_epochs": 0,
    "lr_schedule": "step",
    "joint_loss": "mse",
    "img_size": 224,
}
_AUGMENTED = {"rotation": 30.0, "scale": 0.25, "color_noise": 0.4}  # METRO's; sampled bodies differ in all this already


def recipe(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults for what is given.

    Raises:
        ArgumentError: unknown data or an unknown model.
    """
    data, model = check_source_name(given.get("data", "bodies")), given.get("model", "metro_mini")
    shape = named_preset(model).shape
    values: dict[str, Any] = dict(
        _MINI if model in _TRIED else {**_PUBLISHED, "workers": min(4, (os.cpu_count() or 1) - 1)}
    )
    if model in MESH_TRANSFORMERS:
        values |= {"mask_ratio": shape.mask_ratio, "dropout": shape.dropout}
    else:
        values["regularizer"] = "none"  # there is no attention
    if data == "humbi":
        values |= _AUGMENTED
    if given.get("lr_schedule", values["lr_schedule"]) == "step":
        values["lr_drop_epoch"] = given.get("epochs", values["epochs"]) // 2  # METRO's
    if "epochs" in given:
        values["warmup_epochs"] = short_warmup(given["epochs"], values["warmup_epochs"])
    return values
