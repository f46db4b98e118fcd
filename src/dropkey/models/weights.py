"""Starting from weights in a local file."""

import pickle
import sys
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from dropkey.errors import RunError

__all__ = ["check_fit", "load_weights", "read_weights"]

_OUR_PREFIX = "network."
# Where the weights lie in a checkpoint, by the habits of common trainers; averaged ones first.
_NESTS = ("state_dict_ema", "model_ema", "state_dict", "model")


def load_weights(network: nn.Module, path: Path) -> list[str]:
    """Load a weights file into a timm model, resizing position embeddings where the grid is another.

    Args:
        network: a timm model.
        path: a .safetensors file, or a checkpoint that torch can read without running code: a state_dict, timm's,
            or one of our runs.

    Returns:
        What the user should know, a line each: a head that does not fit and starts anew.

    Raises:
        RunError: the file cannot be read, or does not fit the model.
    """
    given = _fitted(network, read_weights(path))
    wanted = network.state_dict()
    head = _head_keys(network, wanted)
    new_head = {key for key in head if key not in given or given[key].shape != wanted[key].shape}
    kept = {key: value for key, value in given.items() if key not in new_head}
    check_fit(path, kept, wanted, new_head)
    network.load_state_dict({**wanted, **kept})
    return [f"{path.name} has no head for these classes: the head starts anew"] if new_head else []


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a weights file by name, without running code from it.

    Raises:
        RunError: missing, broken, or without weights.
    """
    if not path.is_file():
        raise RunError(f"no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunError(f"{path} holds no weights that can be read: {reason}") from None
    weights = _unnested(content)
    if not weights:
        raise RunError(f"{path} holds no weights: neither a state_dict nor a checkpoint with one")
    return weights


def _unnested(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, dict):
        return {}
    nest = next((content[key] for key in _NESTS if isinstance(content.get(key), dict)), content)
    tensors = {str(key): value for key, value in nest.items() if isinstance(value, Tensor)}
    ours = {key.removeprefix(_OUR_PREFIX): value for key, value in tensors.items() if key.startswith(_OUR_PREFIX)}
    return ours or tensors


def _fitted(network: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Let timm translate old key names and resize embeddings, where the model's own file knows how."""
    fit = getattr(sys.modules[_original_class(network).__module__], "checkpoint_filter_fn", None)
    return dict(fit(dict(weights), network)) if fit is not None else weights


def _original_class(network: nn.Module) -> type[nn.Module]:
    return next(cls for cls in type(network).__mro__ if cls.__module__.startswith(("timm.", "dropkey.models")))


def _head_keys(network: nn.Module, wanted: dict[str, Tensor]) -> set[str]:
    classifier = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return {key for key in wanted if any(key.startswith(f"{name}.") for name in names)}


def check_fit(path: Path, kept: dict[str, Tensor], wanted: dict[str, Tensor], new_head: set[str]) -> None:
    """Raise a RunError that names the first tensor of a file that a model lacks, or has in another shape.

    Args:
        path: the file, for the message.
        kept: what it holds.
        wanted: the state_dict of the model.
        new_head: names that may be missing.
    """
    missing = [key for key in wanted if key not in kept and key not in new_head]
    if missing:
        raise RunError(f"{path} does not fit the model: it lacks {missing[0]} and {len(missing) - 1} more")
    foreign = [key for key in kept if key not in wanted]
    if foreign:
        raise RunError(f"{path} does not fit the model: it has {foreign[0]} and {len(foreign) - 1} more, unknown there")
    wrong = [key for key in kept if kept[key].shape != wanted[key].shape]
    if wrong:
        shapes = f"{tuple(kept[wrong[0]].shape)}, not {tuple(wanted[wrong[0]].shape)}"
        raise RunError(f"{path} does not fit the model: {wrong[0]} is {shapes}")
