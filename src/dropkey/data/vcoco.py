"""V-COCO: what persons in COCO's photographs do, in either of the two formats that people have."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dropkey.data.hoi_names import VCOCO_ROLES, VCOCO_VERBS
from dropkey.data.instance_files import names_of
from dropkey.data.json_files import value_of, whole_of
from dropkey.data.pair_layouts import InstanceLayout, ListLayout, Rules, first_layout, instance_rules
from dropkey.data.pair_records import Broken
from dropkey.data.paired_images import PairSource
from dropkey.errors import DataError

__all__ = ["vcoco"]

_FOLDERS = (("images/train2014", "images/val2014", "train2014", "val2014", "images", "."),) * 2


def vcoco(data_dir: Path, broken: Broken = "refuse") -> PairSource:
    """Return V-COCO below ``data_dir``, which holds COCO's images of 2014 and one of two formats.

    ``annotations/trainval_vcoco.json``, ``test_vcoco.json`` and ``corre_vcoco.npy``, as QPIC makes them, where a pair
    may have no object; or ``instances_vcoco_trainval.json`` and ``instances_vcoco_test.json``, where such pairs are
    left out, there or in the folder itself.

    Raises:
        DataError: a file is missing, or something in it cannot be used.
    """
    wanted = (
        "annotations/trainval_vcoco.json, test_vcoco.json and corre_vcoco.npy, or instances_vcoco_trainval.json and "
        "instances_vcoco_test.json, and COCO's images in images/train2014 and images/val2014"
    )
    return first_layout((_LISTS, _INSTANCES), data_dir, wanted).load(data_dir, broken)


def _rules(content: Any, where: Path) -> Rules:
    """Read the table of verbs and objects; the first object is the background."""
    table = value_of(content, "action_to_object", list, str(where))
    if not all(isinstance(objects, list) for objects in table):
        raise DataError(f"{where}: 'action_to_object' must list the objects of each verb")
    pairs = [
        (verb, whole_of(number, f"{where}: 'action_to_object'") - 1)
        for verb, objects in enumerate(table)
        for number in objects
    ]
    classes = names_of(content, "objects", where)[1:]
    return instance_rules(content, where, classes, "classes", pairs), None


def _file_names(content: Any, where: Path) -> Sequence[str]:
    entries = value_of(content, "annotations", list, str(where))
    return [value_of(entry, "file_name", str, f"{where}, image {at}") for at, entry in enumerate(entries)]


def _verb_ids(verbs: Sequence[str]) -> Sequence[int]:
    """Return QPIC's numbers of the verbs, by their names."""
    joined = [verb.replace(" ", "_") for verb in verbs]
    return [VCOCO_VERBS.index(verb) if verb in VCOCO_VERBS else place for place, verb in enumerate(joined)]


_LISTS = ListLayout(
    name="vcoco",
    files=("trainval_vcoco.json", "test_vcoco.json"),
    table="corre_vcoco.npy",
    folders=_FOLDERS,
    verbs=VCOCO_VERBS,
    first_verb=0,
    may_miss=True,
    roles=VCOCO_ROLES,
)
_INSTANCES = InstanceLayout(
    name="vcoco",
    files=("instances_vcoco_trainval.json", "instances_vcoco_test.json"),
    folders=_FOLDERS,
    keys=("annotations", "actions", "objects"),
    first_object=1,
    rules=_rules,
    file_names=_file_names,
    verb_ids=_verb_ids,
    has_roles=True,
)
