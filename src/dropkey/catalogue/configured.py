"""transformers' models by the names that their users have: built from the configuration alone, never from weights."""

import importlib
import re
from pathlib import Path
from typing import Any

import huggingface_hub
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from dropkey.catalogue.family import Trial
from dropkey.catalogue.pixels import image_parameter, pixels_for, resize, takes_text
from dropkey.errors import ArgumentError, DropKeyError, RunError, first_line

__all__ = ["build", "build_saved", "knows", "names"]


def names() -> list[str]:
    """Return model types (``vit``) and names of model classes (``ViTModel``)."""
    classes = filter(re.compile(r"^[A-Z].*(Model$|For[A-Z])").search, dir(transformers))
    return [*CONFIG_MAPPING, *classes]


def knows(name: str) -> bool:
    """Return whether a name is a model type or a model class."""
    return name in CONFIG_MAPPING or (name in dir(transformers) and _is_model(getattr(transformers, name)))


def build(name: str, img_size: int | None, batch_size: int) -> Trial:
    """Build a model of a type or class in its default configuration, with noise to run it on.

    Of a model that also takes text its vision model is built.

    Raises:
        ArgumentError: it takes more than images, or cannot be built.
    """
    try:
        if name in CONFIG_MAPPING:
            return _build(CONFIG_MAPPING[name](), None, img_size, batch_size)
        model_class = getattr(transformers, name)
        return _build(model_class.config_class(), model_class, img_size, batch_size)
    except DropKeyError:
        raise
    except Exception as error:
        raise ArgumentError(f"cannot build transformers' {name}: {first_line(error)}") from error


def build_saved(place: str, img_size: int | None, batch_size: int) -> Trial:
    """Build what a config.json describes, in a local folder or of a model on the hub.

    Raises:
        RunError: there is no such configuration, or it cannot be had.
        ArgumentError: as in ``build``.
    """
    if not Path(place).is_dir():
        _check_on_hub(place)
    try:
        config = transformers.AutoConfig.from_pretrained(place, trust_remote_code=False)
        named = [getattr(transformers, name, None) for name in config.architectures or []]
        return _build(config, next(filter(_is_model, named), None), img_size, batch_size)
    except DropKeyError:
        raise
    except Exception as error:
        raise ArgumentError(f"cannot build what the config.json of {place} describes: {first_line(error)}") from error


def _check_on_hub(name: str) -> None:
    try:
        if isinstance(huggingface_hub.try_to_load_from_cache(name, "config.json"), str):
            return
        found = huggingface_hub.file_exists(name, "config.json")
    except Exception as error:
        raise RunError(
            f"there is no folder {name!r}, and the model of that name on the hub cannot be had: {first_line(error)}"
        ) from error
    if not found:
        raise RunError(f"there is no folder {name!r}, and no model of that name with a config.json on the hub")


def _build(config: Any, model_class: Any, img_size: int | None, batch_size: int) -> Trial:
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    model_class = model_class or _class_of(config)
    if takes_text(model_class) and hasattr(config, "vision_config"):
        config = config.vision_config
        model_class = _class_of(config)
    if hasattr(config, "use_pretrained_backbone"):
        config.use_pretrained_backbone = False
    if img_size is not None:
        resize(config, img_size)
    inputs = pixels_for(model_class, config, batch_size=batch_size, img_size=img_size)
    return Trial(model_class(config), inputs)


def _class_of(config: Any) -> Any:
    """Return the model class that takes a configuration: transformers' AutoModel's, or else one that takes images."""
    found = MODEL_MAPPING.get(type(config), None)
    if found is not None:
        return found[0] if isinstance(found, tuple) else found
    home = importlib.import_module(type(config).__module__.replace(".configuration_", ".modeling_"))
    for candidate in vars(home).values():
        if _is_model(candidate) and candidate.config_class is type(config) and image_parameter(candidate):
            return candidate
    raise ArgumentError(f"transformers has no model of images for a {type(config).__name__}")


def _is_model(candidate: Any) -> bool:
    return (
        isinstance(candidate, type)
        and issubclass(candidate, transformers.PreTrainedModel)
        and candidate.config_class is not None
    )
