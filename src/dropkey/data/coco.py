"""Folders in COCO's layout: ``annotations/instances_{train,val}*.json`` and the images beside them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dropkey.data.box_rules import Box, BoxRules, is_number
from dropkey.data.boxed_files import BoxedFiles, check_boxes_exist
from dropkey.data.boxed_images import Boxes, DetectionSource
from dropkey.errors import DataError, first_line

__all__ = ["coco"]

Row = Mapping[str, Any]


def coco(data_dir: Path, mend: bool = False) -> DetectionSource:
    """Return the images that two annotation files in COCO's format list, with their boxes.

    Categories and images may have any ids, with gaps or as text, and stand in the order of their ids; ``area`` and
    ``iscrowd`` may be missing.

    Args:
        data_dir: the folder; images are looked for in ``train2017`` (the name of the annotation file), ``train``,
            ``images/train2017``, ``images/train``, ``images`` and the folder itself.
        mend: see ``BoxRules``.

    Raises:
        DataError: something is missing or broken; names the file and what in it.
    """
    rules = BoxRules(mend)
    files = {split: _annotation_file(data_dir, split) for split in ("train", "val")}
    contents = {split: _content(file) for split, file in files.items()}
    names = {split: _categories(contents[split], file) for split, file in files.items()}
    if names["train"] != names["val"]:
        odd = sorted(set(names["train"].items()) ^ set(names["val"].items()), key=str)
        raise DataError(f"{files['train']} and {files['val']} list different categories: {odd[0][1]!r}, id {odd[0][0]}")
    order = sorted(names["train"], key=_place)
    labels = {key: label for label, key in enumerate(order)}
    train, val = (_Split(split, files[split], contents[split], labels, rules).images() for split in ("train", "val"))
    ids = {_key(row["id"]): row["id"] for row in contents["train"]["categories"]}
    classes = [names["train"][key] for key in order]
    return DetectionSource("coco", train, val, classes, [ids[key] for key in order], flips=True, notes=rules.notes())


class _Split:
    """One annotation file, read into images with boxes."""

    def __init__(
        self, split: str, file: Path, content: Mapping[str, Sequence[Row]], labels: Mapping[str, int], rules: BoxRules
    ) -> None:
        self.split = split
        self.file = file
        self.content = content
        self.labels = labels
        self.rules = rules

    def images(self) -> BoxedFiles:
        rows = self._images_by_id()
        annotations = self._annotations_by_image(rows)
        sizes = {key: self._size(row) for key, row in rows.items()}
        boxes = [self._boxes(annotations.get(key, ()), sizes[key]) for key in rows]
        check_boxes_exist(boxes, str(self.file))
        ids = [row["id"] for row in rows.values()]
        return BoxedFiles(self._files(list(rows.values())), list(sizes.values()), boxes, ids)

    def _images_by_id(self) -> dict[str, Row]:
        rows: dict[str, Row] = {}
        for place, row in enumerate(self.content["images"]):
            for name in ("id", "file_name", "width", "height"):
                if row.get(name) is None:
                    raise DataError(f"{self.file}: image number {place} has no {name!r}")
            if _key(row["id"]) in rows:
                raise DataError(f"{self.file}: two images have the id {row['id']}")
            rows[_key(row["id"])] = row
        if not rows:
            raise DataError(f"{self.file} lists no images")
        return {key: rows[key] for key in sorted(rows, key=_place)}

    def _annotations_by_image(self, rows: Mapping[str, Row]) -> dict[str, list[Row]]:
        grouped: dict[str, list[Row]] = {}
        for place, row in enumerate(self.content["annotations"]):
            name = self._name(row, place)
            if _key(row.get("image_id")) not in rows:
                raise DataError(f"{name} is of an unknown image, {row.get('image_id')!r}")
            if _key(row.get("category_id")) not in self.labels:
                raise DataError(f"{name} is of an unknown category, {row.get('category_id')!r}")
            grouped.setdefault(_key(row["image_id"]), []).append({**row, "name": name})
        return grouped

    def _name(self, row: Row, place: int) -> str:
        return f"{self.file}: annotation {row['id']}" if "id" in row else f"{self.file}: annotation number {place}"

    def _size(self, row: Row) -> tuple[int, int]:
        sides = (row["height"], row["width"])
        if not all(is_number(side) and side >= 1 and side == int(side) for side in sides):
            raise DataError(f"{self.file}: the size of image {row['id']} is {sides[1]!r} x {sides[0]!r}")
        return int(sides[0]), int(sides[1])

    def _boxes(self, annotations: Sequence[Row], size: tuple[int, int]) -> Boxes:
        kept = []
        for row in annotations:
            box = self.rules.usable(_corners(row), size, f"{row['name']}: the box {row['bbox']}")
            if box is not None:
                label, is_crowd = self.labels[_key(row["category_id"])], bool(row.get("iscrowd", 0))
                kept.append((box, label, is_crowd, _area(row, box)))
        return Boxes.of(*(zip(*kept, strict=True) if kept else ([], [], [], [])))

    def _files(self, rows: Sequence[Row]) -> list[Path]:
        root, full = self.file.parent.parent, self.file.stem.removeprefix("instances_")
        folders = [full, self.split, f"images/{full}", f"images/{self.split}", "images", "."]
        there = next((root / name for name in folders if (root / name / rows[0]["file_name"]).is_file()), None)
        if there is None:
            places = ", ".join(folders[:-1])
            raise DataError(f"no image {rows[0]['file_name']} below {root}: it is looked for in {places} and there")
        files = [there / str(row["file_name"]) for row in rows]
        missing = [file for file in files if not file.is_file()]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise DataError(f"{self.file} lists {missing[0]}{more}, which is not there")
        return files


def _annotation_file(data_dir: Path, split: str) -> Path:
    if not data_dir.is_dir():
        raise DataError(f"no folder {data_dir}: --data-dir must hold annotations/instances_{{train,val}}*.json")
    found = sorted((data_dir / "annotations").glob(f"instances_{split}*.json"))
    if not found:
        raise DataError(f"no file {data_dir / 'annotations'}/instances_{split}*.json")
    if len(found) > 1:
        names = " and ".join(file.name for file in found[:2])
        raise DataError(f"{data_dir / 'annotations'} holds {names}: leave one of them for {split}")
    return found[0]


def _content(file: Path) -> dict[str, list[Row]]:
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{file} is not JSON that can be read: {first_line(error)}") from None
    for name in ("images", "annotations", "categories"):
        rows = content.get(name) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(f"{file} has no list of {name!r}, as COCO's annotations do")
    return dict(content)


def _categories(content: Mapping[str, Sequence[Row]], file: Path) -> dict[str, str]:
    names: dict[str, str] = {}
    for place, row in enumerate(content["categories"]):
        if row.get("id") is None or row.get("name") is None:
            raise DataError(f"{file}: category number {place} has no 'id' or no 'name'")
        if _key(row["id"]) in names:
            raise DataError(f"{file}: two categories have the id {row['id']}")
        names[_key(row["id"])] = str(row["name"])
    if not names:
        raise DataError(f"{file} lists no categories")
    return names


def _corners(row: Row) -> Box:
    box = row.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise DataError(f"{row['name']}: 'bbox' must be four numbers, left, top, width and height, got {box!r}")
    left, top, width, height = map(float, box)
    return left, top, left + width, top + height


def _area(row: Row, box: Box) -> float:
    """Return the area of the object, or where the file has none, that of its box."""
    area: Any = row.get("area")
    return float(area) if is_number(area) and area > 0 else (box[2] - box[0]) * (box[3] - box[1])


def _key(value: Any) -> str:
    """Return what an id is looked up by: some tools write numbers as text in one place and not in another."""
    return str(value)


def _place(key: str) -> tuple[bool, int, str]:
    """Return what ids are sorted by, as COCO's tools do: it decides between detections of equal scores."""
    is_number = key.removeprefix("-").isdecimal()
    return not is_number, int(key) if is_number else 0, key
