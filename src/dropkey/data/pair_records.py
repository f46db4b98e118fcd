"""Images with pairs from files: what is checked of every format, and what may be left out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from dropkey.data.boxed_images import Boxes
from dropkey.data.paired_images import NO_OBJECT, ImagePairs
from dropkey.data.picture import read_image
from dropkey.errors import DataError

__all__ = ["Broken", "Leftovers", "PairRules", "RecordedPairs", "rare_triplets", "read_record"]

Broken = Literal["refuse", "skip"]
_FEW = 10  # a triplet with fewer training pairs is rare


@dataclass
class Leftovers:
    """What cannot be used: an error, or left out and counted.

    Args:
        broken: "refuse" raises a DataError, "skip" leaves out and counts.
        where: the file, for messages.
    """

    broken: Broken
    where: Path
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, message: str, count: int = 1) -> None:
        """Count something that is left out, or raise a DataError about it."""
        if self.broken == "refuse":
            raise DataError(f"{self.where}: {message}; mend the file, or leave such out by --broken skip")
        self.counts[kind] += count

    def drop(self, kind: str, count: int) -> None:
        """Count something that everybody leaves out."""
        self.counts[kind] += count

    def note(self) -> str:
        """Return what was left out in a line, or an empty text."""
        parts = ", ".join(f"{count} {kind}" for kind, count in self.counts.items() if count)
        return f"{self.where.name}: left out {parts}" if parts else ""


@dataclass(frozen=True)
class PairRules:
    """What pairs may be.

    Args:
        classes: names of the classes of boxes.
        verbs: names of what can be done.
        possible: bool (verbs, classes).
        subject: label of those who do something.
        may_miss: whether a pair may have no object.
    """

    classes: Sequence[str]
    verbs: Sequence[str]
    possible: Any
    subject: int
    may_miss: bool

    @classmethod
    def allowing(
        cls, pairs: Sequence[tuple[int, int]], classes: Sequence[str], verbs: Sequence[str]
    ) -> "PairRules | None":
        """Return rules that allow these (verb, label), each with an object; None if one of them is not listed."""
        possible = np.zeros((len(verbs), len(classes)), dtype=bool)
        for verb, label in pairs:
            if not (0 <= verb < len(verbs) and 0 <= label < len(classes)):
                return None
            possible[verb, label] = True
        return cls(classes, verbs, possible, list(classes).index("person"), may_miss=False)

    def fault(self, labels: Any, subject: int, other: int, verb: int) -> tuple[str, str] | None:
        """Return (what kind of thing it is, what is wrong) for an interaction that cannot be, or None."""
        boxes = len(labels)
        if not 0 <= verb < len(self.verbs):
            return "pairs of an unknown verb", f"verb {verb} of {len(self.verbs)}"
        if not 0 <= subject < boxes:
            return "pairs that point to no box", f"an interaction points to box {subject} of {boxes} as its subject"
        if labels[subject] != self.subject:
            name = self.classes[labels[subject]]
            return "pairs whose subject is no person", f"the subject of an interaction is a {name}, not a person"
        if other == NO_OBJECT and self.may_miss:
            return None
        if not 0 <= other < boxes:
            return "pairs that point to no box", f"an interaction points to box {other} of {boxes} as its object"
        if not self.possible[verb, labels[other]]:
            name = self.classes[labels[other]]
            return (
                "pairs that the correspondence table excludes",
                f"{self.verbs[verb]!r} with a {name} is not in the correspondence table",
            )
        return None


@dataclass(frozen=True)
class Record:
    """Boxes and pairs of one image file."""

    file_name: str
    boxes: Boxes
    pairs: ImagePairs


def read_record(
    file_name: str, xyxy: Any, labels: Any, rows: Sequence[tuple[int, int, int]], rules: PairRules, left: Leftovers
) -> Record:
    """Return an image's boxes and pairs, checked; boxes without area go, with their pairs.

    Args:
        file_name: of the image.
        xyxy: (boxes, 4) in pixels.
        labels: (boxes,) known classes.
        rows: (subject, object, verb) of each interaction.
        rules: what pairs may be.
        left: gets what cannot be used.
    """
    boxes = Boxes.of(xyxy, labels)
    good = []
    for row in rows:
        fault = rules.fault(boxes.labels, *row)
        if fault is None:
            good.append(row)
        else:
            left.add(fault[0], f"{file_name}: {fault[1]}")
    has_area = (boxes.xyxy[:, 2:] > boxes.xyxy[:, :2]).all(1)
    if has_area.all():
        return Record(file_name, boxes, ImagePairs.of(good, len(rules.verbs)))
    places = np.where(has_area, has_area.cumsum() - 1, len(has_area))
    kept = [(s, o, v) for s, o, v in good if has_area[s] and (o == NO_OBJECT or has_area[o])]
    left.drop("boxes without area", int((~has_area).sum()))
    left.drop("pairs of a box without area", len(good) - len(kept))
    moved = [(int(places[s]), o if o == NO_OBJECT else int(places[o]), v) for s, o, v in kept]
    return Record(
        file_name, Boxes.of(boxes.xyxy[has_area], boxes.labels[has_area]), ImagePairs.of(moved, len(rules.verbs))
    )


class RecordedPairs:
    """Images with pairs that lie in folders.

    Args:
        records: of the images, in order.
        folders: where the images may be, the first that has a file counts; COCO's images of 2014 may also bear their
            names of 2017.
        left: gets images that are not there.

    Raises:
        DataError: an image is not there or cannot be read, one is listed twice, or no image is left.
    """

    def __init__(self, records: Sequence[Record], folders: Sequence[Path], left: Leftovers) -> None:
        names = Counter(record.file_name for record in records)
        twice = next((name for name, count in names.items() if count > 1), None)
        if twice is not None:
            raise DataError(f"{left.where} lists the image {twice} twice: delete one of them")
        found = [(record, path) for record in records if (path := _find(record.file_name, folders, left)) is not None]
        if not found:
            raise DataError(f"{left.where} leaves no image to use: looked in {', '.join(map(str, folders))}")
        self.records = [record for record, _ in found]
        self.paths = [path for _, path in found]
        self.file_names: Sequence[str] = [record.file_name for record in self.records]
        self.image_ids: Sequence[int | str] = self.file_names
        self.sizes: Sequence[tuple[int, int]] = [_size(path) for path in self.paths]

    def image(self, index: int) -> Image.Image:
        return read_image(self.paths[index], upright=False)  # as the code of these formats does

    def boxes(self, index: int) -> Boxes:
        return self.records[index].boxes

    def pairs(self, index: int) -> ImagePairs:
        return self.records[index].pairs


def rare_triplets(images: RecordedPairs) -> set[tuple[int, int]]:
    """Return the (verb, label of the object) with fewer than 10 pairs among training images, but one or more."""
    counts: Counter[tuple[int, int]] = Counter()
    for record in images.records:
        pairs, verbs = np.nonzero(record.pairs.verbs)
        others = record.pairs.objects[pairs]
        there = others != NO_OBJECT
        counts.update(zip(verbs[there].tolist(), record.boxes.labels[others[there]].tolist(), strict=True))
    return {triplet for triplet, count in counts.items() if count < _FEW}


def _find(name: str, folders: Sequence[Path], left: Leftovers) -> Path | None:
    for folder in folders:
        for candidate in (name, _name_of_2017(name)):
            if (folder / candidate).is_file():
                return folder / candidate
    left.add("images that are not there", f"no image {name} in {', '.join(map(str, folders))}")
    return None


def _name_of_2017(name: str) -> str:
    return name.rpartition("_")[2] if name.startswith("COCO_") else name


def _size(path: Path) -> tuple[int, int]:
    """Return (rows, cols) from the head of an image file."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        raise DataError(f"{path} is not an image that can be read: mend or delete it") from None
