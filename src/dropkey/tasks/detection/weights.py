"""``--weights``: a detector that starts from what was trained before."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dropkey.errors import RunError
from dropkey.models.weights import check_fit, read_weights, without_prefixes
from dropkey.runs.run_folder import RunFolder
from dropkey.tasks.detection.network import family_of, quiet_transformers

__all__ = ["detector_weights", "load_detector_weights", "weights_file"]


def load_detector_weights(network: nn.Module, place: Path) -> list[str]:
    """Load weights into a detector; parts that depend on the number of classes start anew where that is another.

    Args:
        network: a detector of transformers.
        place: the folder of a run, a folder with model.safetensors, or a file.

    Returns:
        What the user should know, a line each.

    Raises:
        RunError: no weights there, or weights of another model.
    """
    path = weights_file(place)
    wanted, given = network.state_dict(), detector_weights(network, path)
    parts = family_of(network).class_parameters
    of_classes = {key for key in wanted if any(part in key.split(".") for part in parts)}
    anew = {key for key in of_classes if key not in given or given[key].shape != wanted[key].shape}
    kept = {key: value for key, value in given.items() if key not in anew}
    check_fit(path, kept, wanted, anew)
    network.load_state_dict({**wanted, **kept})
    return [f"{place} has other classes: what tells classes apart starts anew"] if anew else []


def detector_weights(network: nn.Module, path: Path) -> dict[str, Tensor]:
    """Return the weights of a file under the names of a detector, or raise a RunError; shapes are not compared."""
    wanted = network.state_dict()
    given = without_prefixes(read_weights(path), wanted)
    return _with_twins(_named_as(network, given, wanted), wanted)


def weights_file(place: Path) -> Path:
    """Return the file of weights in a place: itself, a run's last checkpoint, or model.safetensors; else RunError."""
    if not place.is_dir():
        return place
    run = RunFolder(place)
    if run.holds_a_run:
        return run.last_checkpoint
    path = place / "model.safetensors"
    if not path.is_file():
        raise RunError(f"{place} holds no weights: neither a run nor a model.safetensors")
    return path


def _named_as(network: nn.Module, given: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under the names of the model: files of transformers have the names of earlier versions."""
    if not set(given) - set(wanted):
        return given
    model_class: Any = type(network)
    arguments = {"config": network.config, "state_dict": given, "ignore_mismatched_sizes": True}
    try:
        with quiet_transformers():
            loaded, told = model_class.from_pretrained(None, **arguments, output_loading_info=True)
    except Exception:  # of another model: what does not fit is said where all names are compared
        return given
    absent = {*told["missing_keys"], *(row[0] for row in told["mismatched_keys"])}
    state = loaded.state_dict()
    new = {state[key].data_ptr() for key in absent}
    named = {key: value for key, value in state.items() if value.data_ptr() not in new}
    return {**named, **{key: given[key] for key in told["unexpected_keys"] if key in given}}


def _with_twins(given: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add parameters that share their memory with a given one: files of transformers hold one of them."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for key, value in wanted.items():
        groups.setdefault((value.data_ptr(), *value.shape), []).append(key)
    full = dict(given)
    for keys in groups.values():
        there = [key for key in keys if key in given]
        full |= {key: given[there[0]] for key in keys if there and key not in given}
    return full
