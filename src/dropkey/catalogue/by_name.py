"""Build a model by its library name, untrained, with random inputs."""

import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from dropkey.catalogue.family import Trial, images
from dropkey.errors import ArgumentError, did_you_mean, first_line

__all__ = ["build", "build_timm"]


class _Library(NamedTuple):
    """What a library of models has, and how to build one: from name, size of images (or None) and batch size."""

    knows: Callable[[str], bool]
    names: Callable[[], Iterable[str]]
    build: Callable[[str, int | None, int], Trial]


def build(name: str, img_size: int | None, batch_size: int) -> Trial:
    """Build the model of that name.

    Args:
        name: a model of timm, torchvision, transformers (a model type or class) or torch.nn (``nn.Transformer``),
            the first library that has it, or of one library (``torchvision:vit_b_16``); or a folder with transformers'
            config.json; or a model on the hub, whose configuration is read.
        img_size: side of the images in pixels; by default the model's own. torch.nn's models take sequences.
        batch_size: images, or videos.

    Raises:
        ArgumentError: no such model, it cannot be built, or it takes more than images.
        RunError: its configuration cannot be had.
    """
    library, _, short = name.rpartition(":")
    if library and library not in _LIBRARIES:
        raise ArgumentError(
            f"no library {library!r}{did_you_mean(library, _LIBRARIES)}; known: {', '.join(_LIBRARIES)}"
        )
    asked = [library] if library else [known for known in _LIBRARIES if importlib.util.find_spec(known) is not None]
    if "transformers" in asked and ("/" in short or (Path(short) / "config.json").is_file()):
        from dropkey.catalogue import configured

        return configured.build_saved(short, img_size, batch_size)
    for known in asked:
        held = _LIBRARIES[known]()
        if held.knows(short):
            return held.build(short, img_size, batch_size)
    near = did_you_mean(short, [other for known in asked for other in _LIBRARIES[known]().names()])
    absent = "" if library or "transformers" in asked else "; transformers is not installed"
    raise ArgumentError(f"no model {short!r} in {library or ', '.join(asked)}{near}{absent}")


def build_timm(name: str, img_size: int | None, batch_size: int, **kwargs: Any) -> Trial:
    """Build a timm model; ``kwargs`` are more for its constructor."""
    from dropkey.data.augmentation import ImageFormat
    from dropkey.models.timm_network import build_network

    network = build_network(name, num_classes=10, img_size=img_size, **kwargs)
    return Trial(network, {"": images(ImageFormat.of(network, img_size or 0).img_size, batch_size)})


def _timm() -> _Library:
    import timm

    import dropkey.models  # noqa: F401  registers our models with timm

    return _Library(timm.is_model, timm.list_models, build_timm)


def _torchvision() -> _Library:
    from inspect import signature

    from torchvision.models import get_model_builder, list_models

    def create(name: str, img_size: int | None, batch_size: int) -> Trial:
        builder = get_model_builder(name)
        backbone = {"weights_backbone": None} if "weights_backbone" in signature(builder).parameters else {}
        size = img_size or 224
        sized: dict[str, dict[str, Any]] = {"vit": {"image_size": size}, "maxvit": {"input_size": (size, size)}}
        sizes = sized.get(name.partition("_")[0], {})
        try:
            return Trial(builder(**backbone, **sizes), {"": images(size, batch_size)})
        except Exception as error:
            raise ArgumentError(f"cannot build {name!r} for images of {size} pixels: {first_line(error)}") from error

    return _Library(list_models().__contains__, list_models, create)


def _transformers() -> _Library:
    from dropkey.catalogue import configured

    return _Library(configured.knows, configured.names, configured.build)


def _torch_nn() -> _Library:
    from dropkey.catalogue.torch import TORCH_FAMILIES

    families = {family.name: family for family in TORCH_FAMILIES if family.library == "torch.nn"}

    def full_name(name: str) -> str:
        return "nn." + name.removeprefix("torch.").removeprefix("nn.")

    def create(name: str, img_size: int | None, batch_size: int) -> Trial:
        if img_size is not None:
            raise ArgumentError(f"{name} takes sequences: leave out --img-size")
        family = families[full_name(name)]
        return Trial(family.full(), family.inputs())

    return _Library(lambda name: full_name(name) in families, families.keys, create)


_LIBRARIES: dict[str, Callable[[], _Library]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "transformers": _transformers,
    "torch.nn": _torch_nn,
}
