"""Any timm model by name, of the right size."""

import warnings
from typing import Any

import timm
from torch import nn

import dropkey.models  # noqa: F401  registers our models with timm
from dropkey.errors import ArgumentError, DropKeyError, RunError, did_you_mean, first_line

__all__ = ["build_network", "check_model_name", "own_img_size"]

# Arguments of constructors that are options here, for models that do not take them.
_OPTIONS = {"patch_drop_rate": "--patch-drop", "drop_rate": "--head-drop", "drop_path_rate": "--drop-path"}


def check_model_name(name: str) -> str:
    """Return ``name``, or raise an ArgumentError with near matches if timm has no such model."""
    if not timm.is_model(name):
        hint = did_you_mean(name, timm.list_models()) or "; timm.list_models() lists them"
        raise ArgumentError(f"timm has no model {name!r}{hint}")
    return name


def build_network(name: str, num_classes: int, *, img_size: int | None = None, **kwargs: Any) -> nn.Module:
    """Build a timm model.

    Args:
        name: timm name.
        num_classes: classes of the head.
        img_size: side of the input in pixels; ignored by models that take any size; None for the model's own.
        kwargs: more for ``timm.create_model``: pretrained, drop_path_rate.

    Raises:
        ArgumentError: no such model, or it cannot take this size.
        RunError: its pretrained weights cannot be had.
    """
    check_model_name(name)
    sizes = {} if img_size is None else {"img_size": img_size}
    try:
        network = _create(name, num_classes=num_classes, **sizes, **kwargs)
        _check_whole_patches(name, network, img_size)
        return network
    except DropKeyError:
        raise
    except TypeError as error:
        if "img_size" in str(error):  # convolutions and the like: any size will do
            return build_network(name, num_classes, **kwargs)
        option = next((option for argument, option in _OPTIONS.items() if f"'{argument}'" in str(error)), None)
        if option is not None:
            raise ArgumentError(f"{option}: {name} has nothing like it (timm's own): leave it out") from error
        raise ArgumentError(f"cannot build the model {name!r}: {first_line(error)}") from error
    except Exception as error:
        if kwargs.get("pretrained"):
            raise RunError(
                f"cannot get pretrained weights for {name!r} ({first_line(error)}): without a network, leave out "
                "--pretrained"
            ) from error
        raise ArgumentError(f"cannot build {name!r} for images of {img_size} pixels: {first_line(error)}") from error


def own_img_size(name: str) -> int:
    """Return the side in pixels of the images that a timm model was made for."""
    config = timm.get_pretrained_cfg(check_model_name(name))
    return 224 if config is None else int(config.input_size[-1])


def _create(name: str, **kwargs: Any) -> nn.Module:
    with warnings.catch_warnings():
        # Old names still build; the note about the new name is for timm's callers, not for ours.
        warnings.filterwarnings("ignore", message="Mapping deprecated model", category=UserWarning)
        network = timm.create_model(name, **kwargs)
    assert isinstance(network, nn.Module)
    return network


def _check_whole_patches(name: str, network: nn.Module, img_size: int | None) -> None:
    """timm cuts off what is left over at the right and the bottom: refuse that."""
    patch_size = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    if img_size is None or not isinstance(patch_size, tuple):
        return
    if any(img_size % side for side in patch_size):
        raise ArgumentError(f"--img-size {img_size} is not a multiple of the patch size ({patch_size[0]}) of {name}")
