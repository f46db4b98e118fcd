"""``instances_*.json`` of HICO-DET and V-COCO: for each image the boxes of persons and of objects, pair by pair."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dropkey.data.json_files import box_of, value_of, whole_of
from dropkey.data.pair_records import Leftovers, PairRules, Record, read_record
from dropkey.errors import DataError

__all__ = ["names_of", "read_instances"]


def read_instances(
    content: Any,
    names: Sequence[str],
    keys: tuple[str, str, str],
    rules: PairRules,
    first_object: int,
    left: Leftovers,
) -> list[Record]:
    """Return what a file holds of each image; equal boxes of a class are one.

    Args:
        content: of the file.
        names: file names of the images, in its order.
        keys: what it calls its list of images, and in them the verbs and the objects of the pairs.
        rules: what pairs may be.
        first_object: number of the first class: 0 in HICO-DET; 1 in V-COCO, where 0 is the background.
        left: gets what cannot be used.

    Raises:
        DataError: something in it that cannot be; the message names the image.
    """
    entries = value_of(content, keys[0], list, str(left.where))
    if not entries or len(entries) != len(names):
        raise DataError(f"{left.where} has {len(entries)} images with pairs and {len(names)} file names: one each")
    return [_read(entry, name, keys[1:], rules, first_object, left) for entry, name in zip(entries, names, strict=True)]


def _read(entry: Any, name: str, keys: tuple[str, ...], rules: PairRules, first_object: int, left: Leftovers) -> Record:
    where = f"{left.where}, {name}"
    columns = {key: value_of(entry, key, list, where) for key in ("boxes_h", "boxes_o", *keys)}
    if len({len(column) for column in columns.values()}) > 1:
        told = ", ".join(f"{len(column)} {key}" for key, column in columns.items())
        raise DataError(f"{where} has {told}: one of each for every pair is expected")
    verbs, objects = ([whole_of(value, f"{where}: {key}") for value in columns[key]] for key in keys)
    places: dict[tuple[int, tuple[float, ...]], int] = {}
    rows = []
    for person, other, label, verb in zip(columns["boxes_h"], columns["boxes_o"], objects, verbs, strict=True):
        label -= first_object
        if not 0 <= label < len(rules.classes):
            raise DataError(f"{where} has an object of class {label + first_object}, which is none of those listed")
        subject = places.setdefault((rules.subject, tuple(box_of(person, where))), len(places))
        rows.append((subject, places.setdefault((label, tuple(box_of(other, where))), len(places)), verb))
    boxes = [box for _, box in places]
    return read_record(name, boxes, [label for label, _ in places], rows, rules, left)


def names_of(content: Any, key: str, where: Path) -> list[str]:
    """Return a list of names that a file holds, or raise a DataError."""
    names = value_of(content, key, list, str(where))
    if not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{where}: {key!r} must be a list of names")
    return list(names)
