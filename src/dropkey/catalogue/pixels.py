"""What transformers' vision models take, made from their configuration."""

import inspect
import math
from typing import Any

import torch
from torch import Tensor

from dropkey.catalogue.family import images
from dropkey.errors import ArgumentError

__all__ = ["image_parameter", "pixels_for", "resize", "takes_text"]

_USUAL_SIZE = 224  # where the configuration has none: any size will do


def image_parameter(model_class: type) -> str | None:
    """Return the name under which a model takes its images, or None if it takes none."""
    parameters = _parameters(model_class)
    return next((name for name in ("pixel_values", "pixel_values_videos") if name in parameters), None)


def takes_text(model_class: type) -> bool:
    """Return whether a model takes text, with images or alone."""
    return "input_ids" in _parameters(model_class)


def resize(config: Any, img_size: int) -> None:
    """Set the size of images in a configuration that has one."""
    place = _size_place(config)
    if place is not None:
        own = getattr(*place)
        setattr(*place, img_size if isinstance(own, int) else type(own)((img_size, img_size)))


def pixels_for(model_class: type, config: Any, *, batch_size: int, img_size: int | None = None) -> dict[str, Any]:
    """Return noise for a model's forward: keyword arguments under their names.

    Images are (batch, channels, height, width), videos (batch, frames, channels, height, width). Where the model takes
    a mask of pixels, the right half of every second image is padding.

    Args:
        model_class: a class of transformers.
        config: its configuration.
        batch_size: images or videos.
        img_size: side in pixels; by default the configuration's.

    Raises:
        ArgumentError: the model needs more than images.
    """
    parameters, name = _parameters(model_class), image_parameter(model_class)
    height, width = _size(config, img_size)
    inputs: dict[str, Any] = {}
    if "spatial_shapes" in parameters:
        inputs = _patches(config, batch_size, img_size)
    elif name is not None:
        frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None) or 1
        pixels = images((height, width), batch_size * frames, getattr(config, "num_channels", 3))
        is_video = frames > 1 or name.endswith("videos")
        inputs[name] = pixels.reshape(batch_size, frames, *pixels.shape[1:]) if is_video else pixels
    if "pixel_mask" in parameters:
        inputs["pixel_mask"] = torch.ones(batch_size, height, width, dtype=torch.long)
        inputs["pixel_mask"][1::2, :, width // 2 :] = 0
    others = [other for other in _required(parameters) if other not in inputs]
    if takes_text(model_class) and "input_ids" not in others:
        others.append("input_ids")
    if name is None or others:
        raise ArgumentError(
            f"{model_class.__name__} takes {', '.join(others) or 'no images'}, and dropkey verify makes images alone: "
            "in Python, give your own inputs to dropkey.apply(model, ...).verify"
        )
    return inputs


def _parameters(model_class: type) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(model_class.forward).parameters)  # type: ignore[attr-defined]


def _required(parameters: dict[str, inspect.Parameter]) -> list[str]:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [n for n, p in parameters.items() if n != "self" and p.kind in named and p.default is p.empty]


def _size(config: Any, img_size: int | None) -> tuple[int, int]:
    place = _size_place(config)
    size = img_size or (getattr(*place) if place is not None else _USUAL_SIZE)
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _size_place(config: Any) -> tuple[Any, str] | None:
    """Where a configuration, or that of the backbone inside of it, says how large its images are."""
    for name in ("image_size", "crop_size"):
        if getattr(config, name, None):
            return config, name
    insides = (getattr(config, name, None) for name in ("vision_config", "backbone_config"))
    return next(filter(None, (_size_place(inside) for inside in insides if inside is not None)), None)


def _patches(config: Any, batch_size: int, img_size: int | None) -> dict[str, Tensor]:
    """What SigLIP 2 takes: patches of images of any shape; every second image is a quarter shorter and padded."""
    side = config.patch_size
    rows = img_size // side if img_size else math.isqrt(config.num_patches)
    num_patches, kept = rows * rows, rows - rows // 4
    attention_mask = torch.ones(batch_size, num_patches, dtype=torch.long)
    attention_mask[1::2, kept * rows :] = 0
    patches = images(rows * side, batch_size, config.num_channels).unfold(2, side, side).unfold(3, side, side)
    shapes = torch.tensor([[rows, rows]]).repeat(batch_size, 1)
    shapes[1::2, 0] = kept
    return {
        "pixel_values": patches.permute(0, 2, 3, 4, 5, 1).reshape(batch_size, num_patches, -1),
        "pixel_attention_mask": attention_mask,
        "spatial_shapes": shapes,
    }
