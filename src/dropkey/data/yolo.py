"""Folders in YOLO's layout: ``data.yaml``, images below ``images/`` and a text file for each below ``labels/``."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dropkey.data.box_rules import Box, BoxRules
from dropkey.data.boxed_files import BoxedFiles, check_boxes_exist
from dropkey.data.boxed_images import Boxes, DetectionSource
from dropkey.data.picture import SUFFIXES, size_of_image
from dropkey.errors import DataError

__all__ = ["yolo"]


def yolo(data_dir: Path, mend: bool = False) -> DetectionSource:
    """Return the images that ``data.yaml`` names as ``train`` and ``val``, with the boxes in their label files.

    A label file has a line for each object: class, and center and sides of its box in shares of the image; a polygon
    counts as the box around it. An image without a label file has no objects.

    Args:
        data_dir: the folder of ``data.yaml``.
        mend: see ``BoxRules``.

    Raises:
        DataError: something is missing or broken; names the file and the line.
    """
    file, rules = data_dir / "data.yaml", BoxRules(mend)
    content = _content(file)
    classes = _names(content, file)
    root = data_dir / str(content.get("path") or ".")
    train, val = (_split(content, name, file, root, len(classes), rules) for name in ("train", "val"))
    return DetectionSource("yolo", train, val, classes, range(len(classes)), flips=True, notes=rules.notes())


def _content(file: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise DataError(f"{file} must have the entries train, val and names")
    return content


def _names(content: Mapping[str, Any], file: Path) -> list[str]:
    names = content.get("names")
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise DataError(f"{file}: the names must be numbered 0, 1, ..., got {sorted(names)}")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError(f"{file} has no names of the classes")
    if content.get("nc") not in (None, len(names)):
        raise DataError(f"{file} says nc: {content['nc']} and lists {len(names)} names")
    return [str(name) for name in names]


def _split(
    content: Mapping[str, Any], split: str, file: Path, root: Path, num_classes: int, rules: BoxRules
) -> BoxedFiles:
    if not content.get(split):
        raise DataError(f"{file} does not say where the images for {split!r} are")
    places = content[split] if isinstance(content[split], list) else [content[split]]
    files = [image for place in places for image in _images(root / str(place), file)]
    sizes = [_size(image) for image in files]
    boxes = [_boxes(_label_file(image), size, num_classes, rules) for image, size in zip(files, sizes, strict=True)]
    check_boxes_exist(boxes, f"{split} of {file}")
    return BoxedFiles(files, sizes, boxes, [_image_id(image) for image in files])


def _images(place: Path, file: Path) -> list[Path]:
    if place.is_dir():
        found = sorted(image for image in place.rglob("*") if image.suffix.lower() in SUFFIXES)
    elif place.suffix == ".txt" and place.is_file():
        found = [place.parent / line.strip() for line in place.read_text().splitlines() if line.strip()]
    else:
        raise DataError(f"{file} names {place}, which is neither a folder of images nor a .txt file that lists them")
    if not found:
        raise DataError(f"{place} holds no images ({', '.join(sorted(SUFFIXES))})")
    return found


def _size(image: Path) -> tuple[int, int]:
    """Return (rows, cols), upright: YOLO's tools take boxes so."""
    size = size_of_image(image)
    if size is None:
        problem = "is not an image that can be read: mend or delete it" if image.exists() else "is not there"
        raise DataError(f"the image {image} {problem}")
    return size[1], size[0]


def _label_file(image: Path) -> Path:
    """Return the label file of an image: below labels/ instead of the last images/ of its path."""
    before, images, after = str(image).rpartition(f"{os.sep}images{os.sep}")
    return (Path(before) / "labels" / after if images else image).with_suffix(".txt")


def _image_id(image: Path) -> int | str:
    """Return what YOLO's tools call an image in files of predictions: its stem, as a number if it is one."""
    return int(image.stem) if image.stem.isdecimal() else image.stem


def _boxes(file: Path, size: tuple[int, int], num_classes: int, rules: BoxRules) -> Boxes:
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the labels {file}: {error}") from None
    kept = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            label, box = _parsed(line.split(), size, num_classes, f"{file}, line {number}")
            usable = rules.usable(box, size, f"{file}, line {number}")
            if usable is not None:
                kept.append((usable, label))
    return Boxes.of(*(zip(*kept, strict=True) if kept else ([], [])))


def _parsed(words: Sequence[str], size: tuple[int, int], num_classes: int, where: str) -> tuple[int, Box]:
    try:
        label, *numbers = map(float, words)
    except ValueError:
        raise DataError(f"{where} holds something else than numbers: {' '.join(words)!r}") from None
    if len(numbers) < 4 or (len(numbers) > 4 and (len(numbers) < 6 or len(numbers) % 2)):
        raise DataError(
            f"{where} has {len(words)} numbers: a class and four numbers of a box are expected, or six and more of a "
            "polygon"
        )
    if label != int(label) or not 0 <= label < num_classes:
        raise DataError(f"{where} is of class {words[0]}, and data.yaml names the classes 0 to {num_classes - 1}")
    return int(label), _box(numbers, size)


def _box(numbers: Sequence[float], size: tuple[int, int]) -> Box:
    """Return the corners in pixels of a box (center and sides) or of a polygon, both in shares of the image."""
    rows, cols = size
    if len(numbers) == 4:
        x, y, width, height = numbers
        left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    else:
        left, top, right, bottom = min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])
    return left * cols, top * rows, right * cols, bottom * rows
