"""``--weights``: a network for pairs that starts from a trained detector."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from dropkey.data.hoi_names import COCO_CLASSES
from dropkey.errors import RunError
from dropkey.models.weights import read_weights
from dropkey.runs.checkpoints import read_checkpoint
from dropkey.runs.run_folder import RunFolder
from dropkey.tasks.detection.network import family_of

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
    path = _file(place)
    given, wanted = read_weights(path), detector.state_dict()
    parts = family_of(detector).class_parameters
    of_classes = {key for key in wanted if any(part in key.split(".") for part in parts)}
    _check(path, {key: value for key, value in given.items() if key not in of_classes}, wanted, of_classes)
    names = _names(place, given, of_classes)
    known = [name.replace("_", " ") for name in names]
    fresh = [name for name in classes if name.replace("_", " ") not in known]
    for key in wanted:
        if key in of_classes and key in given:
            given[key] = _picked(given[key], wanted[key], known, classes)
    detector.load_state_dict({**wanted, **{key: given[key] for key in wanted if key in given}})
    return [f"{place} does not know the classes {', '.join(fresh[:5])}: these start anew"] if fresh else []


def _picked(given: Tensor, wanted: Tensor, names: Sequence[str], classes: Sequence[str]) -> Tensor:
    """Return the rows of the classes, and that of "no object" if both have one, in place of the untrained ones."""
    result = wanted.clone()
    for row, name in enumerate(classes):
        if name.replace("_", " ") in names:
            result[row] = given[names.index(name.replace("_", " "))]
    if len(given) == len(names) + 1 and len(wanted) > len(classes):
        result[-1] = given[-1]
    return result


def _names(place: Path, given: dict[str, Tensor], of_classes: set[str]) -> list[str]:
    """Return what the rows of a detector stand for: a run says it, others have COCO's 80 classes or its ids to 90."""
    run = RunFolder(place)
    if place.is_dir() and run.holds_a_run:
        return list(read_checkpoint(run.last_checkpoint).get("classes", []))
    rows = max((len(given[key]) for key in of_classes if key in given), default=0)
    if rows in (91, 92):
        return [COCO_CLASSES.get(number, "") for number in range(91)]
    return list(COCO_CLASSES.values()) if rows in (80, 81) else []


def _file(place: Path) -> Path:
    if not place.is_dir():
        return place
    run = RunFolder(place)
    return run.last_checkpoint if run.holds_a_run else place / "model.safetensors"


def _check(path: Path, given: dict[str, Tensor], wanted: dict[str, Tensor], of_classes: set[str]) -> None:
    storages = {wanted[key].data_ptr() for key in given if key in wanted}
    for key, value in wanted.items():
        if key in of_classes:
            continue
        if key not in given and value.data_ptr() not in storages:  # files hold one of the names of what is shared
            raise RunError(f"{path} does not fit the detector: it lacks {key}")
        if key in given and given[key].shape != value.shape:
            shapes = f"{tuple(given[key].shape)}, not {tuple(value.shape)}"
            raise RunError(f"{path} does not fit the detector: {key} is {shapes}")
