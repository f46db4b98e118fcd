"""HICO-DET and V-COCO from files: what is read, and one line for everything that cannot be."""

import contextlib

import numpy as np
import pytest
from layouts.pairs import (
    CUP_ID,
    HOLD,
    HORSE_ID,
    PERSON,
    RIDE,
    hico_content,
    hico_instances,
    hico_lists,
    listed,
    vcoco_content,
    vcoco_instances,
    vcoco_lists,
)
from PIL import Image

from dropkey import DropKeyError
from dropkey.data.hico_det import hico_det
from dropkey.data.hoi_names import COCO_CLASSES, HICO_VERBS, VCOCO_ROLES, VCOCO_VERBS
from dropkey.data.pair_sources import load_pair_source
from dropkey.data.vcoco import vcoco


def test_names():
    assert (len(COCO_CLASSES), len(HICO_VERBS), len(VCOCO_VERBS), len(VCOCO_ROLES)) == (80, 117, 29, 24)
    assert (COCO_CLASSES[1], COCO_CLASSES[19], COCO_CLASSES[90]) == ("person", "horse", "toothbrush")
    assert (HICO_VERBS[HOLD - 1], HICO_VERBS[RIDE - 1], HICO_VERBS[57]) == ("hold", "ride", "no_interaction")


def test_list_of_images(tmp_path):
    source = hico_det(hico_lists(tmp_path, train=[listed("a.jpg", rows=[(0, 1, HOLD), (0, 1, RIDE), (0, 2, RIDE)])]))
    pairs, boxes = source.train.pairs(0), source.train.boxes(0)
    assert (pairs.subjects.tolist(), pairs.objects.tolist()) == ([0, 0], [1, 2])
    assert [np.flatnonzero(row).tolist() for row in pairs.verbs] == [[HOLD - 1, RIDE - 1], [RIDE - 1]]
    assert [source.classes[label] for label in boxes.labels] == ["person", "cup", "horse"]
    assert source.train.sizes == [(40, 60)]
    assert source.train.image(0).size == (60, 40)
    assert source.rare == {(HOLD - 1, 41), (RIDE - 1, 41), (RIDE - 1, 17)}
    assert (source.verb_ids[0], source.category_ids[11], source.roles, source.notes) == (1, 13, (), [])


def test_numbers_as_texts_are_numbers(tmp_path):
    entry = listed("a.jpg", boxes=[("1\n", [2, 2, 20, 38]), (str(CUP_ID), [18, 10, 26, 18])])
    assert len(hico_det(hico_lists(tmp_path, train=[entry])).train.pairs(0)) == 1


def test_images_without_a_pair_stay(tmp_path):
    source = hico_det(hico_lists(tmp_path))
    assert [len(source.train.pairs(index)) for index in range(2)] == [1, 0]


def test_vcoco_pairs_without_an_object(tmp_path):
    source = vcoco(vcoco_lists(tmp_path))
    pairs = source.val.pairs(0)
    assert pairs.objects.tolist() == [1, -1]
    assert [VCOCO_VERBS[np.flatnonzero(row)[0]] for row in pairs.verbs] == ["hold_obj", "stand"]
    assert source.may_miss
    assert source.roles == VCOCO_ROLES


def test_boxes_without_area_go_with_their_pairs(tmp_path):
    boxes = [(PERSON, [2, 2, 20, 38]), (CUP_ID, [18, 10, 18, 18]), (HORSE_ID, [30, 5, 58, 38])]
    source = hico_det(hico_lists(tmp_path, train=[listed("a.jpg", boxes, [(0, 1, HOLD), (0, 2, RIDE)])]))
    assert [source.classes[label] for label in source.train.boxes(0).labels] == ["person", "horse"]
    assert source.train.pairs(0).objects.tolist() == [1]
    assert source.notes == ["trainval_hico.json: left out 1 boxes without area, 1 pairs of a box without area"]


def test_instances_of_hico_det(tmp_path):
    source = hico_det(hico_instances(tmp_path))
    assert source.classes == ["person", "cup"]
    assert (source.train.boxes(0).labels.tolist(), source.train.pairs(0).verbs.tolist()) == ([0, 1], [[True, False]])
    assert [len(source.train.pairs(index)) for index in range(2)] == [1, 0]
    assert source.rare == {(1, 1)}
    assert (source.category_ids, list(source.verb_ids)) == ([1, 47], [1, 2])


@pytest.mark.parametrize("names", ["2014", "2017"])
def test_instances_of_vcoco(tmp_path, names):
    source = vcoco(vcoco_instances(tmp_path, names=names))
    assert source.train.boxes(0).labels.tolist() == [0, 1]  # equal boxes are one
    assert source.train.pairs(0).verbs.tolist() == [[True, True]]
    assert list(source.verb_ids) == [VCOCO_VERBS.index("hold_obj"), VCOCO_VERBS.index("read_obj")]
    assert (list(source.roles), source.may_miss) == ([0, 1], False)


def test_skip_leaves_out_what_is_broken_and_says_so(tmp_path):
    rows = [(0, 1, HOLD), (0, 9, HOLD), (1, 2, RIDE), (0, 1, 200)]
    hico_lists(tmp_path, train=[listed("a.jpg", rows=rows), listed("gone.jpg")])
    (tmp_path / "images" / "train2015" / "gone.jpg").unlink()
    source = hico_det(tmp_path, "skip")
    assert (source.train.file_names, len(source.train.pairs(0))) == (["a.jpg"], 1)
    assert source.notes == [
        "trainval_hico.json: left out 1 pairs that point to no box, 1 pairs whose subject is no person, "
        "1 pairs of an unknown verb, 1 images that are not there"
    ]


def without(content, key):
    return {name: value for name, value in content.items() if name != key}


def changed(**changes):
    """The first image of HICO-DET's instances with other columns."""
    content = hico_content()
    return {**content, "annotation": [{**content["annotation"][0], **changes}, content["annotation"][1]]}


IMPOSSIBLE = np.ones((117, 80))
IMPOSSIBLE[HOLD - 1, 41] = 0


def spoil(write):
    """A folder in which one file is then written over or deleted."""

    def build(root):
        hico_lists(root)
        write(root)

    return build


FAULTS = {
    "nothing there": (lambda root: root.mkdir(), "hico_det is not in"),
    "a pair that points to no object": (
        lambda root: hico_lists(root, train=[listed("a.jpg", rows=[(0, 7, HOLD)])]),
        "a.jpg: an interaction points to box 7 of 3 as its object; mend the file, or leave such out by --broken skip",
    ),
    "a pair that points to no subject": (
        lambda root: hico_lists(root, train=[listed("a.jpg", rows=[(3, 1, HOLD)])]),
        "points to box 3 of 3 as its subject",
    ),
    "a subject that is no person": (
        lambda root: hico_lists(root, train=[listed("a.jpg", rows=[(2, 1, HOLD)])]),
        "the subject of an interaction is a horse, not a person",
    ),
    "an unknown verb": (
        lambda root: hico_lists(root, train=[listed("a.jpg", rows=[(0, 1, 118)])]),
        "a.jpg: verb 117 of 117",
    ),
    "no object where HICO-DET has one": (
        lambda root: hico_lists(root, train=[listed("a.jpg", rows=[(0, -1, HOLD)])]),
        "points to box -1 of 3 as its object",
    ),
    "a pair that cannot be": (lambda root: hico_lists(root, table=IMPOSSIBLE), "'hold' with a cup is not in the"),
    "no correspondence table": (
        spoil(lambda root: (root / "annotations" / "corre_hico.npy").unlink()),
        "no correspondence table",
    ),
    "a correspondence table of another shape": (
        lambda root: hico_lists(root, table=np.ones((80, 117))),
        "must be an array (117, 80) of 0 and 1, one row a verb, got (80, 117)",
    ),
    "a correspondence table that is none": (
        spoil(lambda root: (root / "annotations" / "corre_hico.npy").write_text("1 0")),
        "is not an array of NumPy",
    ),
    "no list for validation": (spoil(lambda root: (root / "annotations" / "test_hico.json").unlink()), "no file"),
    "no JSON": (spoil(lambda root: (root / "annotations" / "test_hico.json").write_text("{")), "is not JSON"),
    "no list": (lambda root: hico_lists(root, train={}), "must be a list of images"),
    "an empty list": (lambda root: hico_lists(root, val=[]), "must be a list of images, one or more"),
    "an image without a name": (lambda root: hico_lists(root, train=[{}]), "image 0 has no 'file_name'"),
    "an image without boxes": (
        lambda root: hico_lists(root, train=[without(listed("a.jpg"), "annotations")]),
        "(a.jpg) has no 'annotations'",
    ),
    "interactions that are no list": (
        lambda root: hico_lists(root, train=[{**listed("a.jpg"), "hoi_annotation": 3}]),
        "'hoi_annotation' must be a list, got 3",
    ),
    "a box of three numbers": (
        lambda root: hico_lists(root, train=[listed("a.jpg", boxes=[(PERSON, [1, 2, 3])], rows=[])]),
        "has the box [1, 2, 3]",
    ),
    "a box of NaN": (
        lambda root: hico_lists(root, train=[listed("a.jpg", boxes=[(PERSON, [1, 2, 3, float("nan")])], rows=[])]),
        "has the box [1, 2, 3, nan]",
    ),
    "an unknown class": (
        lambda root: hico_lists(root, train=[listed("a.jpg", boxes=[(12, [1, 2, 3, 4])], rows=[])]),
        "has a box of category_id 12",
    ),
    "a verb that is no number": (
        lambda root: hico_lists(root, train=[listed("a.jpg", rows=[(0, 1, "hold")])]),
        "category_id must be a whole number, got 'hold'",
    ),
    "an image that is not there": (
        spoil(lambda root: (root / "images" / "train2015" / "b.jpg").unlink()),
        "no image b.jpg in",
    ),
    "an image that is none": (
        spoil(lambda root: (root / "images" / "train2015" / "b.jpg").write_text("b")),
        "is not an image that can be read",
    ),
    "an image listed twice": (
        lambda root: hico_lists(root, train=[listed("a.jpg")] * 2),
        "lists the image a.jpg twice",
    ),
    "no pair at all": (lambda root: hico_lists(root, train=[listed("a.jpg", rows=[])]), "there is nothing to learn"),
    "instances: fewer objects than persons": (
        lambda root: hico_instances(root, changed(boxes_o=[])),
        "HICO_0.jpg has 1 boxes_h, 0 boxes_o, 1 verb, 1 object",
    ),
    "instances: a class that is not listed": (
        lambda root: hico_instances(root, changed(object=[2])),
        "has an object of class 2, which is none of those listed",
    ),
    "instances: more names than images": (
        lambda root: hico_instances(root, hico_content(filenames=["a.jpg"])),
        "has 2 images with pairs and 1 file names",
    ),
    "instances: no person": (
        lambda root: hico_instances(root, hico_content(objects=["horse", "cup"])),
        "'objects' has no person",
    ),
    "instances: a broken table": (
        lambda root: hico_instances(root, hico_content(correspondence=[[0, 1]])),
        "'correspondence' must list [interaction, object, verb], got [0, 1]",
    ),
    "instances: a table of unknown verbs": (
        lambda root: hico_instances(root, hico_content(correspondence=[[0, 1, 5]], rare=[])),
        "names one that is not listed",
    ),
    "instances: something rare that is not there": (
        lambda root: hico_instances(root, hico_content(rare=[7])),
        "'rare' names an interaction that is not in 'correspondence'",
    ),
    "instances: other verbs for validation": (
        lambda root: hico_instances(root, test=hico_content(verbs=["wash", "hold"])),
        "has other verbs or objects than",
    ),
    "instances: no table": (
        lambda root: hico_instances(root, without(hico_content(), "correspondence")),
        "has no 'correspondence'",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_in_one_line(tmp_path, fault):
    build, words = FAULTS[fault]
    build(tmp_path / "data")
    with pytest.raises(DropKeyError) as error:
        hico_det(tmp_path / "data")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


VCOCO_FAULTS = {
    "nothing there": (lambda root: root.mkdir(), "vcoco is not in"),
    "a table that lists no objects": (
        lambda root: vcoco_instances(root, vcoco_content(action_to_object=[2, 2])),
        "must list the objects of each verb",
    ),
    "a background in the table": (
        lambda root: vcoco_instances(root, vcoco_content(action_to_object=[[0], [2]])),
        "names one that is not listed",
    ),
    "no name of an image": (
        lambda root: vcoco_instances(root, vcoco_content(annotations=[{"boxes_h": []}])),
        "file_name",
    ),
    "a subject that is no person though there is no object": (
        lambda root: vcoco_lists(root, rows=[(1, -1, 1)]),
        "the subject of an interaction is a cup",
    ),
}


@pytest.mark.parametrize("fault", VCOCO_FAULTS)
def test_faults_of_vcoco_in_one_line(tmp_path, fault):
    build, words = VCOCO_FAULTS[fault]
    with contextlib.suppress(KeyError):  # the image of an entry without a name cannot be drawn
        build(tmp_path / "data")
    with pytest.raises(DropKeyError) as error:
        vcoco(tmp_path / "data")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda root: load_pair_source("hico"), "unknown data 'hico'; did you mean 'hico_det'?"),
        (lambda root: load_pair_source("vcoco"), "--data vcoco needs --data-dir"),
        (lambda root: load_pair_source("digit_pairs", root), "reads no --data-dir"),
    ],
)
def test_sources_by_name(tmp_path, call, words):
    with pytest.raises(DropKeyError) as error:
        call(tmp_path)
    assert words in str(error.value)


def test_no_code_of_a_table_is_run(tmp_path):
    hico_lists(tmp_path)
    np.save(tmp_path / "annotations" / "corre_hico.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DropKeyError, match="is not an array"):
        hico_det(tmp_path)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_photographs_are_taken_as_they_are_stored(orientation, tmp_path):
    """As the published code of these formats reads them, so that boxes and pixels agree."""
    source = hico_det(hico_lists(tmp_path))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.zeros((40, 60, 3), np.uint8)
    stored[:10, :20] = 255
    Image.fromarray(stored).save(source.train.paths[0], exif=exif, quality=100)
    source = hico_det(tmp_path)
    assert source.train.sizes[0] == (40, 60)
    assert np.abs(np.asarray(source.train.image(0)).astype(int) - stored).max() < 30
