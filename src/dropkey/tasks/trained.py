"""A trained network and the images to measure it on: from a run folder, or any timm model with a weights file."""

import dataclasses
from dataclasses import dataclass

from torch import nn

from dropkey.adapters.handle import Handle
from dropkey.data.loaders import ImageData
from dropkey.errors import ArgumentError, RunError
from dropkey.tasks.checkpoints import check_classes, read_checkpoint
from dropkey.tasks.config import TrainConfig
from dropkey.tasks.networks import check_model_name
from dropkey.tasks.run_folder import RunFolder
from dropkey.tasks.training import prepare

__all__ = ["Trained", "load_run", "load_timm"]


@dataclass(frozen=True)
class Trained:
    """A network, its regularizer if any, and its images."""

    config: TrainConfig
    network: nn.Module
    handle: Handle | None
    data: ImageData
    num_classes: int


def load_run(folder: RunFolder, which: str = "last", data_dir: str | None = None) -> Trained:
    """Load what a run has trained; averaged weights where it kept any.

    Args:
        folder: of the run.
        which: "last", or "best" by validation accuracy.
        data_dir: where the images are now, if elsewhere.

    Raises:
        RunError: no run, no checkpoint, or a damaged one.
    """
    config = folder.read_config()
    path = {"last": folder.last_checkpoint, "best": folder.best_checkpoint}[which]
    checkpoint = read_checkpoint(path)
    state = {
        key.removeprefix("network."): value
        for key, value in checkpoint["state_dict"].items()
        if key.startswith("network.")
    }
    prepared = prepare(
        dataclasses.replace(config, pretrained=False, weights=None, data_dir=data_dir or config.data_dir)
    )
    check_classes(checkpoint, prepared.source.classes, path)
    try:
        prepared.network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise RunError(f"{path} does not fit the model of {folder.config_file}: {reason}") from None
    return Trained(prepared.config, prepared.network, prepared.handle, prepared.data, len(prepared.source.classes))


def load_timm(config: TrainConfig) -> Trained:
    """Load a timm model with trained weights and a head for the classes of the data.

    Raises:
        ArgumentError: no such model, or neither a weights file nor pretrained weights.
        RunError: weights without such a head.
    """
    check_model_name(str(config.model))
    if not config.weights and not config.pretrained:
        raise ArgumentError(f"{config.model} has no trained weights: give --weights FILE or --pretrained")
    prepared = prepare(config)
    if config.weights and prepared.notes:
        raise RunError(f"nothing to evaluate: {prepared.notes[0]}")
    return Trained(prepared.config, prepared.network, prepared.handle, prepared.data, len(prepared.source.classes))
