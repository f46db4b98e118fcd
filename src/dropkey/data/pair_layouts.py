"""The two ways in which HICO-DET and V-COCO lie in a folder: a list of images, or boxes pair by pair."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dropkey.data.hoi_names import COCO_CLASSES
from dropkey.data.image_lists import read_correspondence, read_image_list
from dropkey.data.instance_files import names_of, read_instances
from dropkey.data.json_files import read_json
from dropkey.data.pair_records import Broken, Leftovers, PairRules, Record, RecordedPairs, rare_triplets
from dropkey.data.paired_images import PairSource
from dropkey.errors import DataError

__all__ = ["InstanceLayout", "ListLayout", "Rules", "first_layout", "instance_rules"]

_IDS = {name: number for number, name in COCO_CLASSES.items()}


@dataclass(frozen=True)
class ListLayout:
    """Lists of images, as QPIC, PPDM and CDN read them, in ``annotations/``.

    Args:
        name: of the source.
        files: of training and of validation data.
        table: the file that says what can be done with what.
        folders: where the images of each split may be, below the source's folder.
        verbs: names of what can be done.
        first_verb: number of the first of them.
        may_miss: whether a pair may have no object.
        roles: verbs that V-COCO's measure counts.
    """

    name: str
    files: tuple[str, str]
    table: str
    folders: tuple[Sequence[str], Sequence[str]]
    verbs: Sequence[str]
    first_verb: int
    may_miss: bool = False
    roles: Sequence[int] = ()

    def is_in(self, data_dir: Path) -> bool:
        """Whether the data lie in a folder in this way."""
        return (data_dir / "annotations" / self.files[0]).exists()

    def load(self, data_dir: Path, broken: Broken) -> PairSource:
        """Return the source, or raise a DataError."""
        annotations, classes = data_dir / "annotations", list(COCO_CLASSES.values())
        possible = read_correspondence(annotations / self.table, self.verbs, classes)
        rules = PairRules(classes, self.verbs, possible, classes.index("person"), self.may_miss)
        labels = {number: label for label, number in enumerate(COCO_CLASSES)}

        def read(left: Leftovers) -> list[Record]:
            return read_image_list(left.where, rules, labels, self.first_verb, left)

        images, notes = _splits(read, annotations, self.files, data_dir, self.folders, broken)
        return PairSource(
            name=self.name,
            train=images[0],
            val=images[1],
            classes=classes,
            category_ids=list(COCO_CLASSES),
            verbs=self.verbs,
            verb_ids=range(self.first_verb, self.first_verb + len(self.verbs)),
            possible=possible,
            subject=rules.subject,
            rare=rare_triplets(images[0]),
            roles=self.roles,
            may_miss=self.may_miss,
            flips=True,
            notes=notes,
        )


Rules = tuple[PairRules, set[tuple[int, int]] | None]  # and which (verb, object) is rare, if the file says it


@dataclass(frozen=True)
class InstanceLayout:
    """``instances_*.json``: for each image the boxes of persons and of objects, pair by pair.

    Args:
        name: of the source.
        files: of training and of validation data.
        folders: where the images of each split may be, below the source's folder.
        keys: what a file calls its list of images, and in them verbs and objects.
        first_object: number of the first class.
        rules: reads from a file what pairs may be.
        file_names: reads from a file the names of its images.
        verb_ids: from the names of the verbs to their numbers in files of predictions.
        has_roles: whether V-COCO's measure counts.
    """

    name: str
    files: tuple[str, str]
    folders: tuple[Sequence[str], Sequence[str]]
    keys: tuple[str, str, str]
    first_object: int
    rules: Callable[[Any, Path], Rules]
    file_names: Callable[[Any, Path], Sequence[str]]
    verb_ids: Callable[[Sequence[str]], Sequence[int]]
    has_roles: bool

    def is_in(self, data_dir: Path) -> bool:
        """Whether the data lie in a folder in this way."""
        return (self._folder(data_dir) / self.files[0]).exists()

    def _folder(self, data_dir: Path) -> Path:
        inner = data_dir / "annotations"
        return inner if (inner / self.files[0]).exists() else data_dir

    def load(self, data_dir: Path, broken: Broken) -> PairSource:
        """Return the source, or raise a DataError."""
        folder = self._folder(data_dir)
        first = folder / self.files[0]
        rules, rare = self.rules(read_json(first, "pairs of images"), first)

        def read(left: Leftovers) -> list[Record]:
            content = read_json(left.where, "pairs of images")
            own = self.rules(content, left.where)[0]
            if list(own.classes) != list(rules.classes) or list(own.verbs) != list(rules.verbs):
                raise DataError(f"{left.where} has other verbs or objects than {first}")
            names = self.file_names(content, left.where)
            return read_instances(content, names, self.keys, rules, self.first_object, left)

        images, notes = _splits(read, folder, self.files, data_dir, self.folders, broken)
        return PairSource(
            name=self.name,
            train=images[0],
            val=images[1],
            classes=rules.classes,
            category_ids=[_IDS.get(name.replace("_", " "), at + 1) for at, name in enumerate(rules.classes)],
            verbs=rules.verbs,
            verb_ids=self.verb_ids(rules.verbs),
            possible=rules.possible,
            subject=rules.subject,
            rare=rare_triplets(images[0]) if rare is None else rare,
            roles=range(len(rules.verbs)) if self.has_roles else (),
            flips=True,
            notes=notes,
        )


Layout = ListLayout | InstanceLayout


def first_layout(layouts: Sequence[Layout], data_dir: Path, wanted: str) -> Layout:
    """Return the layout in which data lie in a folder, or raise a DataError; ``wanted`` says what should be there."""
    for layout in layouts:
        if layout.is_in(data_dir):
            return layout
    raise DataError(f"{layouts[0].name} is not in {data_dir}: put there {wanted}")


def instance_rules(
    content: Any, where: Path, classes: Sequence[str], verbs_key: str, pairs: Sequence[tuple[int, int]]
) -> PairRules:
    """Return what pairs may be: the (verb, label) of ``pairs``; DataError without a person among the classes."""
    verbs = names_of(content, verbs_key, where)
    if "person" not in classes:
        raise DataError(f"{where}: 'objects' has no person")
    rules = PairRules.allowing(pairs, classes, verbs)
    if rules is None:
        raise DataError(f"{where}: its table of verbs and objects names one that is not listed")
    return rules


def _splits(
    read: Callable[[Leftovers], list[Record]],
    folder: Path,
    files: tuple[str, str],
    data_dir: Path,
    image_folders: tuple[Sequence[str], Sequence[str]],
    broken: Broken,
) -> tuple[list[RecordedPairs], list[str]]:
    images, notes = [], []
    for name, inner in zip(files, image_folders, strict=True):
        left = Leftovers(broken, folder / name)
        images.append(RecordedPairs(read(left), [data_dir / part for part in inner], left))
        notes.append(left.note())
    if not any(len(record.pairs) for record in images[0].records):
        raise DataError(f"{folder / files[0]} has no pair: there is nothing to learn")
    return images, [note for note in notes if note]
