"""The list of images that QPIC, PPDM and CDN share: JSON with boxes and interactions of each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dropkey.data.json_files import box_of, read_json, value_of, whole_of
from dropkey.data.pair_records import Leftovers, PairRules, Record, read_record
from dropkey.errors import DataError

__all__ = ["read_correspondence", "read_image_list"]


def read_image_list(
    path: Path, rules: PairRules, labels: Mapping[int, int], first_verb: int, left: Leftovers
) -> list[Record]:
    """Return what a list holds of each image.

    An image has ``file_name``, ``annotations`` (``bbox`` as left, top, right, bottom in pixels, and ``category_id``)
    and ``hoi_annotation`` (``subject_id`` and ``object_id``, places in ``annotations``, -1 for no object, and
    ``category_id``, the verb).

    Args:
        path: of the list.
        rules: what pairs may be.
        labels: label of each category id.
        first_verb: number of the first verb: 1 in HICO-DET, 0 in V-COCO.
        left: gets what cannot be used.

    Raises:
        DataError: no such file, or something in it that cannot be; the message names the image.
    """
    entries = read_json(path, "the list of images with their boxes and interactions")
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path} must be a list of images, one or more")
    return [
        _read(entry, f"{path}, image {place}", rules, labels, first_verb, left) for place, entry in enumerate(entries)
    ]


def _read(
    entry: Any, where: str, rules: PairRules, labels: Mapping[int, int], first_verb: int, left: Leftovers
) -> Record:
    name = value_of(entry, "file_name", str, where)
    where = f"{where} ({name})"
    boxes = value_of(entry, "annotations", list, where)
    rows = value_of(entry, "hoi_annotation", list, where)
    return read_record(
        name,
        [box_of(value_of(box, "bbox", list, where), where) for box in boxes],
        [_label(box, where, labels) for box in boxes],
        [_interaction(row, where, first_verb) for row in rows],
        rules,
        left,
    )


def _label(box: Any, where: str, labels: Mapping[int, int]) -> int:
    number = whole_of(value_of(box, "category_id", object, where), f"{where}: category_id")
    if number not in labels:
        raise DataError(f"{where} has a box of category_id {number}: known are {min(labels)} to {max(labels)} of COCO")
    return labels[number]


def _interaction(row: Any, where: str, first_verb: int) -> tuple[int, int, int]:
    subject, other, verb = (
        whole_of(value_of(row, key, object, f"{where}: an interaction"), f"{where}: {key}")
        for key in ("subject_id", "object_id", "category_id")
    )
    return subject, other, verb - first_verb


def read_correspondence(path: Path, verbs: Sequence[str], classes: Sequence[str]) -> Any:
    """Return which verb goes with which class: bool (verbs, classes).

    Raises:
        DataError: no such file, no array in it, or one of another shape; no code in it is run.
    """
    try:
        table = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(
            f"no correspondence table {path}: an array (verbs, objects) of 0 and 1 that says what can be done with what"
        ) from None
    except (OSError, ValueError, EOFError):
        raise DataError(f"{path} is not an array of NumPy") from None
    if table.shape != (len(verbs), len(classes)) or not np.isin(table, (0, 1)).all():
        wanted = f"({len(verbs)}, {len(classes)})"
        raise DataError(f"{path} must be an array {wanted} of 0 and 1, one row a verb, got {table.shape}")
    return table.astype(bool)
