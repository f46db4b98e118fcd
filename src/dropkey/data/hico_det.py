"""HICO-DET: 600 interactions of persons with 80 kinds of objects, in either of the two formats that people have."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dropkey.data.hoi_names import HICO_VERBS
from dropkey.data.instance_files import names_of
from dropkey.data.json_files import value_of, whole_of
from dropkey.data.pair_layouts import InstanceLayout, ListLayout, Rules, first_layout, instance_rules
from dropkey.data.pair_records import Broken
from dropkey.data.paired_images import PairSource
from dropkey.errors import DataError

__all__ = ["hico_det"]

_FOLDERS = (
    ("images/train2015", "train2015", "images", "."),
    ("images/test2015", "test2015", "images", "."),
)


def hico_det(data_dir: Path, broken: Broken = "refuse") -> PairSource:
    """Return HICO-DET below ``data_dir``, which holds images/train2015, images/test2015 and one of two formats.

    ``annotations/trainval_hico.json``, ``test_hico.json`` and ``corre_hico.npy``, as QPIC, PPDM and CDN read them; or
    ``instances_train2015.json`` and ``instances_test2015.json``, there or in the folder itself.

    Raises:
        DataError: a file is missing, or something in it cannot be used.
    """
    wanted = (
        "annotations/trainval_hico.json, test_hico.json and corre_hico.npy, or instances_train2015.json and "
        "instances_test2015.json, and the images in images/train2015 and images/test2015"
    )
    return first_layout((_LISTS, _INSTANCES), data_dir, wanted).load(data_dir, broken)


def _rules(content: Any, where: Path) -> Rules:
    triplets: dict[int, tuple[int, int]] = {}
    for row in value_of(content, "correspondence", list, str(where)):
        if not isinstance(row, list) or len(row) != 3:
            raise DataError(f"{where}: 'correspondence' must list [interaction, object, verb], got {row!r}")
        number, label, verb = (whole_of(value, f"{where}: 'correspondence'") for value in row)
        triplets[number] = (verb, label)
    rules = instance_rules(content, where, names_of(content, "objects", where), "verbs", list(triplets.values()))
    rare = value_of(content, "rare", list, str(where))
    if not set(rare) <= set(triplets):
        raise DataError(f"{where}: 'rare' names an interaction that is not in 'correspondence'")
    return rules, {triplets[number] for number in rare}


def _file_names(content: Any, where: Path) -> Sequence[str]:
    return names_of(content, "filenames", where)


def _verb_ids(verbs: Sequence[str]) -> Sequence[int]:
    return range(1, len(verbs) + 1)


_LISTS = ListLayout(
    name="hico_det",
    files=("trainval_hico.json", "test_hico.json"),
    table="corre_hico.npy",
    folders=_FOLDERS,
    verbs=HICO_VERBS,
    first_verb=1,
)
_INSTANCES = InstanceLayout(
    name="hico_det",
    files=("instances_train2015.json", "instances_test2015.json"),
    folders=_FOLDERS,
    keys=("annotation", "verb", "object"),
    first_object=0,
    rules=_rules,
    file_names=_file_names,
    verb_ids=_verb_ids,
    has_roles=False,
)
