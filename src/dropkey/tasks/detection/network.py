"""A detector by name: a preset, a folder with a configuration, or a model on the hub."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers
from torch import nn

from dropkey.errors import ArgumentError, DropKeyError, RunError, did_you_mean, first_line
from dropkey.tasks.detection.families import DetectorFamily, family_called
from dropkey.tasks.detection.presets import BACKBONE_PRETRAINED, PRESETS

__all__ = ["build_detector", "check_model_name", "family_of", "quiet_transformers"]


def check_model_name(name: str, pretrained: bool) -> None:
    """Raise an ArgumentError if a name is neither a preset nor a folder, and no model on the hub is asked for."""
    if pretrained and name in PRESETS and name not in BACKBONE_PRETRAINED:
        raise ArgumentError(f"{name} has no pretrained weights: leave out --pretrained, or name a model on the hub")
    if name not in PRESETS and not pretrained and not (Path(name) / "config.json").is_file():
        raise ArgumentError(
            f"no model {name!r}{did_you_mean(name, PRESETS)}; known: {', '.join(PRESETS)}, a folder with a "
            "config.json, or with --pretrained a model on the hub"
        )


def build_detector(
    name: str, num_classes: int, sides: tuple[int, int], *, pretrained: bool = False, fresh: bool = True
) -> nn.Module:
    """Build a detector of transformers with a head for these classes.

    Args:
        name: a preset, a folder with config.json, or with ``pretrained`` a model on the hub.
        num_classes: classes without "no object".
        sides: (rows, cols) of the input in pixels, for models that are made for one size.
        pretrained: take configuration and weights from the hub; of a preset, the weights of its backbone.
        fresh: False where other weights will be loaded: then only the configuration is needed.

    Raises:
        ArgumentError: no such model, of a family that is not one of detectors, or for inputs of another size.
        RunError: it is on the hub and cannot be had.
    """
    check_model_name(name, pretrained)
    try:
        config = _configuration(name, sides)
        family_called(config.model_type, name)
        config.num_labels = num_classes
        if pretrained and fresh and name not in PRESETS:
            return _loaded(name, config)
        return _built(config, pretrained_backbone=pretrained and fresh)
    except DropKeyError:
        raise
    except Exception as error:
        if pretrained:
            raise RunError(
                f"cannot get the weights of {name!r} ({first_line(error)}): without a network, leave out --pretrained"
            ) from error
        raise ArgumentError(f"cannot build the detector {name!r}: {first_line(error)}") from error


def family_of(network: nn.Module) -> DetectorFamily:
    """Return the family of a detector of transformers."""
    config: Any = network.config
    return family_called(config.model_type, type(network).__name__)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from drawing bars and listing the parts that start anew: a run says that itself."""
    logging: Any = transformers.logging
    level, shows_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shows_bars:
            logging.enable_progress_bar()


def _configuration(name: str, sides: tuple[int, int]) -> Any:
    if name in PRESETS:
        return PRESETS[name](sides)
    return transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)


def _loaded(name: str, config: Any) -> nn.Module:
    with quiet_transformers():
        network: nn.Module = _any_detector().from_pretrained(
            name, config=config, ignore_mismatched_sizes=True, trust_remote_code=False
        )
    return network


def _built(config: Any, *, pretrained_backbone: bool) -> nn.Module:
    parts: list[Any] = [config, getattr(config, "backbone_config", None)]
    for part in parts:
        if hasattr(part, "use_pretrained_backbone"):
            part.use_pretrained_backbone = pretrained_backbone
    network: nn.Module = _any_detector().from_config(config)
    return network


def _any_detector() -> Any:
    return transformers.AutoModelForObjectDetection
