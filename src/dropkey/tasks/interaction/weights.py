"""``--weights``: a network for pairs that starts from a trained detector."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from dropkey.data.hoi_names import COCO_CLASSES
from dropkey.models.weights import check_fit, read_weights, without_prefixes
from dropkey.runs.checkpoints import read_checkpoint
from dropkey.runs.run_folder import RunFolder
from dropkey.tasks.detection.network import family_of
from dropkey.tasks.detection.weights import detector_weights, weights_file

__all__ = ["start_from_detector"]


def start_from_detector(detector: nn.Module, place: Path, classes: Sequence[str]) -> list[str]:
    """Load a trained detector; of its classes those of the data are taken, by their names.

    Args:
        detector: of the same kind, with one output for each of ``classes``, and perhaps more.
        place: the folder of a detection run, a folder with model.safetensors, or such a file.
        classes: of the data.

    Returns:
        What the user should know, a line each: classes that start anew.

    Raises:
        RunError: no weights there, or weights of another model.
    """
    path = weights_file(place)
    wanted = detector.state_dict()
    raw = without_prefixes(read_weights(path), wanted)
    parts = family_of(detector).class_parameters
    of_classes = {key for key in wanted if any(part in key.split(".") for part in parts)}
    given = detector_weights(detector, path)
    kept = {key: value for key, value in given.items() if key not in of_classes}
    check_fit(path, kept, wanted, of_classes)
    rows = {key: raw[key] for key in of_classes if key in raw}
    complete = _memory(wanted, rows) == _memory(wanted, of_classes)  # files hold one of those that share it
    names = [name.replace("_", " ") for name in _names(place, rows)] if complete else []
    picked = {key: _picked(value, wanted[key], names, classes) for key, value in rows.items()}
    detector.load_state_dict({**wanted, **kept, **picked})
    fresh = [name for name in classes if name.replace("_", " ") not in names]
    return [f"{place} does not know the classes {', '.join(fresh[:5])}: these start anew"] if fresh else []


def _memory(parameters: Mapping[str, Tensor], names: Iterable[str]) -> set[int]:
    return {parameters[name].data_ptr() for name in names}


def _picked(given: Tensor, wanted: Tensor, names: Sequence[str], classes: Sequence[str]) -> Tensor:
    """Return the rows of the classes, and that of "no object" if both have one, in place of the untrained ones."""
    result = wanted.clone()
    for row, name in enumerate(classes):
        if name.replace("_", " ") in names:
            result[row] = given[names.index(name.replace("_", " "))]
    if len(given) == len(names) + 1 and len(wanted) > len(classes):
        result[-1] = given[-1]
    return result


def _names(place: Path, rows: Mapping[str, Tensor]) -> list[str]:
    """Return what the rows of a detector stand for: a run says it, others have COCO's 80 classes or its ids to 90."""
    run = RunFolder(place)
    if place.is_dir() and run.holds_a_run:
        return list(read_checkpoint(run.last_checkpoint).get("classes", []))
    count = max((len(value) for value in rows.values()), default=0)
    if count in (91, 92):
        return [COCO_CLASSES.get(number, "") for number in range(91)]
    return list(COCO_CLASSES.values()) if count in (80, 81) else []
