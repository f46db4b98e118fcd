"""Starting from weights in a local file."""

import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from dropkey.errors import RunError, first_line
from dropkey.models.torch_file import read_torch_file

__all__ = ["check_fit", "load_weights", "read_origin", "read_weights", "without_prefixes"]

# Where the weights lie in a checkpoint, by the habits of common trainers; averaged ones first.
_NESTS = (
    "state_dict_ema",
    "model_ema",
    "ema",
    "teacher",
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "student",
)
# What wrappers, trainers and our own runs put before the names.
_PREFIXES = ("module", "_orig_mod", "network", "model", "net", "backbone", "encoder", "_forward_module")
# Parameters that a regularizer adds: what messages call it, and the option that asks for it.
_ADDED = {
    ".reattention.": ("Re-attention", "--re-attention all, or the last so many blocks"),
    ".locality.": ("locality self-attention", "--locality-attention full, or temperature"),
}


def load_weights(network: nn.Module, path: Path) -> list[str]:
    """Load a weights file into a timm model, resizing position embeddings where the grid is another.

    Args:
        network: a timm model.
        path: a .safetensors file, or one of torch's: a state_dict, or a checkpoint of timm, DINO, MAE, DeiT, Lightning
            or one of our runs, whatever it holds beside the weights; no code in it is run.

    Returns:
        What the user should know, a line each: a head that does not fit and starts anew.

    Raises:
        RunError: the file cannot be read, or does not fit the model.
    """
    wanted = network.state_dict()
    given = _fitted(network, without_prefixes(read_weights(path), wanted))
    head = _head_keys(network, wanted)
    new_head = {key for key in head if key not in given or given[key].shape != wanted[key].shape}
    new = set(new_head)
    for part in _ADDED:
        added = {key for key in wanted if part in key}
        new |= set() if added & set(given) else added  # what a model is without begins without change
    kept = {key: value for key, value in given.items() if key not in new_head}
    check_fit(path, kept, wanted, new)
    network.load_state_dict({**wanted, **kept})
    return [f"{path.name} has no head for these classes: the head starts anew"] if new_head else []


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a weights file by name, without running code from it.

    Raises:
        RunError: missing, broken, or without weights.
    """
    try:
        found = path.is_file()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None
    if not found:
        raise RunError(f"no weights file {path}")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else read_torch_file(path, "a file of weights")
    weights = _unnested(content)
    if not weights:
        raise RunError(f"{path} holds no weights: neither a state_dict nor a checkpoint with one")
    return weights


def read_origin(path: Path) -> dict[str, Any]:
    """Return what a checkpoint says of itself beside its weights: the classes, for one of our runs."""
    content = {} if path.suffix == ".safetensors" else read_torch_file(path, "a file of weights")
    return {name: content[name] for name in ("classes",) if isinstance(content, Mapping) and name in content}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, OverflowError) as error:
        raise RunError(f"{path} is not a file of weights that can be read: {first_line(error)}") from None


def _unnested(content: Any) -> dict[str, Tensor]:
    """Return the tensors of the first place in a checkpoint that holds any."""
    if not isinstance(content, Mapping):
        return {}
    for place in (*(content.get(name) for name in _NESTS), content):
        tensors = {str(k): v for k, v in place.items() if isinstance(v, Tensor)} if isinstance(place, Mapping) else {}
        if tensors:
            return tensors
    return {}


def without_prefixes(weights: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """Take away what wrappers have put before the names, as long as more of them become those that are wanted."""
    best = dict(weights)
    shorter = best
    while (prefix := _common_prefix(shorter)) is not None:
        shorter = {key.removeprefix(prefix): value for key, value in shorter.items()}
        if _count_known(shorter, wanted) > _count_known(best, wanted):
            best = shorter
    return best


def _common_prefix(weights: Collection[str]) -> str | None:
    """Return a wrapper's prefix that most names have."""
    for name in _PREFIXES:
        if 2 * sum(key.startswith(f"{name}.") for key in weights) > len(weights):
            return f"{name}."
    return None


def _count_known(weights: Collection[str], wanted: Collection[str]) -> int:
    return sum(key in wanted for key in weights)


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


def check_fit(path: Path, kept: Mapping[str, Tensor], wanted: Mapping[str, Tensor], new: Collection[str]) -> None:
    """Raise a RunError that names the first tensor of a file that a model lacks, or has in another shape.

    Args:
        path: the file, for the message.
        kept: what it holds.
        wanted: the state_dict of the model.
        new: names that may be missing.
    """
    for part, (what, option) in _ADDED.items():
        added = [key for key in kept if part in key and key not in wanted]
        if added:
            raise RunError(
                f"{path} is of a model with {what} ({added[0]}), which this one has not: {option}, as its run's "
                "config.yaml says"
            )
    missing = [key for key in wanted if key not in kept and key not in new]
    foreign = [key for key in kept if key not in wanted]
    wrong = [key for key in kept if key in wanted and kept[key].shape != wanted[key].shape]
    if missing:
        others = f"; what it has is called {', '.join(foreign[:2])}" if foreign else ""
        raise RunError(
            f"{path} does not fit the model: it lacks {_some(missing)}{others}; see --model and --model-kwargs"
        )
    if foreign:
        raise RunError(f"{path} does not fit the model: it has {_some(foreign)}, unknown there; see --model")
    if wrong:
        shapes = f"{tuple(kept[wrong[0]].shape)}, not {tuple(wanted[wrong[0]].shape)}"
        raise RunError(
            f"{path} does not fit the model: {wrong[0]} is {shapes}; see --model, --model-kwargs, --img-size"
        )


def _some(keys: Sequence[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more"
