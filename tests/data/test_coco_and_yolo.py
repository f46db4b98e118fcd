"""Sources of images with boxes: what they read, and one line for everything that a user can mend."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from dropkey.data.coco import coco
from dropkey.data.yolo import yolo
from dropkey.errors import DataError


def content(box=(4, 2, 8, 6), **annotation):
    row = {"id": 5, "image_id": 9, "category_id": 3, "bbox": list(box), **annotation}
    return {
        "images": [{"id": 9, "file_name": "a.png", "width": 30, "height": 20}],
        "annotations": [{key: value for key, value in row.items() if value is not None}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 1, "name": "dog"}],
    }


def coco_folder(root):
    for split in ("train", "val"):
        write(root, content(), split)
        (root / split).mkdir()
        Image.new("RGB", (30, 20)).save(root / split / "a.png")
    return root


def write(root, what, split="train"):
    (root / "annotations").mkdir(exist_ok=True)
    text = what if isinstance(what, str) else json.dumps(what)
    (root / "annotations" / f"instances_{split}.json").write_text(text)


def yolo_folder(root):
    (root / "data.yaml").write_text(yaml.safe_dump({"train": "images/train", "val": "images/val", "names": ["a", "b"]}))
    for split in ("train", "val"):
        for part in ("images", "labels"):
            (root / part / split).mkdir(parents=True)
        Image.new("RGB", (30, 20)).save(root / "images" / split / "7.png")
        (root / "labels" / split / "7.txt").write_text("1 0.5 0.5 0.2 0.4\n")
    return root


def without(name):
    return {key: value for key, value in content().items() if key != name}


def images(**changes):
    row = {**content()["images"][0], **changes}
    return {**content(), "images": [{key: value for key, value in row.items() if value is not None}]}


def label(text):
    return lambda root: (root / "labels" / "train" / "7.txt").write_text(text)


def data(**changes):
    def change(root):
        there = yaml.safe_load((root / "data.yaml").read_text())
        (root / "data.yaml").write_text(yaml.safe_dump({**there, **changes}))

    return change


BAD_COCO = {
    "no annotations": (lambda root: (root / "annotations" / "instances_val.json").unlink(), "instances_val*.json"),
    "two annotation files": (lambda root: write(root, content(), "val2017"), "instances_val.json and"),
    "broken JSON": (lambda root: write(root, '{"images": ['), "is not JSON"),
    "a list": (lambda root: write(root, "[]"), "no list of 'images'"),
    "no annotations list": (lambda root: write(root, without("annotations")), "no list of 'annotations'"),
    "images of strings": (lambda root: write(root, {**content(), "images": ["a.png"]}), "no list of 'images'"),
    "no images": (lambda root: write(root, {**content(), "images": [], "annotations": []}), "lists no images"),
    "no categories": (lambda root: write(root, {**content(), "categories": []}), "lists no categories"),
    "category without a name": (lambda root: write(root, {**content(), "categories": [{"id": 1}]}), "no 'name'"),
    "categories twice": (
        lambda root: write(root, {**content(), "categories": content()["categories"] * 2}),
        "two categories have the id 3",
    ),
    "other categories": (
        lambda root: write(root, {**content(), "categories": [{"id": 3, "name": "cow"}]}),
        "different categories",
    ),
    "image without an id": (lambda root: write(root, images(id=None)), "has no 'id'"),
    "image without a name": (lambda root: write(root, images(file_name=None)), "has no 'file_name'"),
    "image without a size": (lambda root: write(root, images(width=None)), "has no 'width'"),
    "image of no size": (lambda root: write(root, images(height=0)), "the size of image 9 is 30 x 0"),
    "images twice": (
        lambda root: write(root, {**content(), "images": content()["images"] * 2}),
        "two images have the id 9",
    ),
    "unknown image": (lambda root: write(root, content(image_id=8)), "annotation 5 is of an unknown image, 8"),
    "unknown category": (lambda root: write(root, content(category_id=2)), "unknown category, 2"),
    "no box": (lambda root: write(root, content(bbox=None)), "'bbox' must be four numbers"),
    "three numbers": (lambda root: write(root, content(bbox=[1, 2, 3])), "got [1, 2, 3]"),
    "strings": (lambda root: write(root, content(bbox=["1", "2", "3", "4"])), "must be four numbers"),
    "NaN": (lambda root: write(root, content(bbox=[float("nan"), 2, 3, 4])), "not finite"),
    "no area": (lambda root: write(root, content(bbox=[1, 2, 0, 4])), "is 0 wide and 4 high"),
    "negative sides": (lambda root: write(root, content(bbox=[10, 2, -5, 4])), "is -5 wide"),
    "outside": (lambda root: write(root, content(bbox=[20, 2, 20, 4])), "reaches 10 pixels out of its image"),
    "no box in the set": (lambda root: write(root, {**content(), "annotations": []}), "has no box in 1 images"),
    "crowds alone": (lambda root: write(root, content(iscrowd=1)), "has no box in 1 images"),
    "missing image": (lambda root: (root / "train" / "a.png").unlink(), "no image a.png below"),
    "truncated image": (
        lambda root: (root / "train" / "a.png").write_bytes((root / "val" / "a.png").read_bytes()[:40]),
        "train/a.png",
    ),
    "no image in the file": (lambda root: (root / "train" / "a.png").write_text("hello"), "is not an image"),
    "image of another size": (
        lambda root: Image.new("RGB", (20, 30)).save(root / "train" / "a.png"),
        "has 20 x 30 pixels, and its boxes are for 30 x 20",
    ),
}

BAD_YOLO = {
    "no data.yaml": (lambda root: (root / "data.yaml").unlink(), "cannot read"),
    "no YAML": (lambda root: (root / "data.yaml").write_text("a: [1"), "is not YAML"),
    "no entries": (lambda root: (root / "data.yaml").write_text("- 1\n"), "must have the entries"),
    "no names": (data(names=[]), "has no names"),
    "names with gaps": (data(names={0: "a", 2: "b"}), "must be numbered 0, 1"),
    "another number of names": (data(nc=3), "nc: 3 and lists 2 names"),
    "no val": (data(val=None), "does not say where the images for 'val' are"),
    "no such folder": (data(val="images/test"), "neither a folder"),
    "no images": (lambda root: (root / "images" / "val" / "7.png").unlink(), "holds no images"),
    "no image in the file": (lambda root: (root / "images" / "train" / "7.png").write_text("hi"), "is not an image"),
    "too few numbers": (label("1 0.5 0.5 0.2\n"), "7.txt, line 1 has 4 numbers"),
    "an odd number": (label("1 0.5 0.5 0.2 0.2 0.9\n"), "has 6 numbers"),
    "words": (label("cat 0.5 0.5 0.2 0.2\n"), "something else than numbers"),
    "beyond the names": (label("1 0.5 0.5 0.2 0.4\n2 0.5 0.5 0.2 0.4\n"), "line 2 is of class 2"),
    "half a class": (label("0.5 0.5 0.5 0.2 0.4\n"), "of class 0.5"),
    "pixels": (label("1 15 10 6 8\n"), "out of its image of 30 x 20"),
    "no area": (label("1 0.5 0.5 0 0.4\n"), "is 0 wide"),
    "NaN": (label("1 nan 0.5 0.1 0.4\n"), "not finite"),
    "no labels": (lambda root: (root / "labels" / "train" / "7.txt").unlink(), "has no box in 1 images"),
    "labels of bytes": (
        lambda root: (root / "labels" / "train" / "7.txt").write_bytes(b"\xff\xfe\x00"),
        "cannot read the labels",
    ),
}


def read(load, root):
    source = load(root)
    for split in (source.train, source.val):
        split.image(0)


def refused(load, root, named):
    with pytest.raises(DataError) as caught:
        read(load, root)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", BAD_COCO)
def test_bad_coco_is_one_line(case, tmp_path):
    change, named = BAD_COCO[case]
    change(coco_folder(tmp_path))
    refused(coco, tmp_path, named)


@pytest.mark.parametrize("case", BAD_YOLO)
def test_bad_yolo_is_one_line(case, tmp_path):
    change, named = BAD_YOLO[case]
    change(yolo_folder(tmp_path))
    refused(yolo, tmp_path, named)


def test_no_folder(tmp_path):
    refused(coco, tmp_path / "nothing", "no folder")
    refused(yolo, tmp_path / "nothing", "cannot read")


def test_coco_as_written(tmp_path):
    source = coco(coco_folder(tmp_path))
    boxes = source.train.boxes(0)
    assert (source.classes, source.category_ids) == (["dog", "cat"], [1, 3])
    assert boxes.xyxy.tolist() == [[4, 2, 12, 8]]
    assert (boxes.labels.tolist(), boxes.areas.tolist(), boxes.is_crowd.tolist()) == ([1], [48], [False])
    assert source.train.image(0).size == (30, 20)


def test_coco_with_ids_as_text(tmp_path):
    root = coco_folder(tmp_path)
    write(root, {**content(image_id="9", category_id="3"), "images": images(id="9")["images"]})
    source = coco(root)
    assert source.train.boxes(0).labels.tolist() == [1]
    assert list(source.train.image_ids) == ["9"]


def test_areas_and_crowds_of_the_file_are_kept(tmp_path):
    root = coco_folder(tmp_path)
    crowd = {**content()["annotations"][0], "id": 6, "iscrowd": 1, "area": 11.5}
    write(root, {**content(), "annotations": [*content()["annotations"], crowd]})
    boxes = coco(root).train.boxes(0)
    assert boxes.is_crowd.tolist() == [False, True]
    assert boxes.areas.tolist() == [48, 11.5]


def test_rounding_at_the_edge_is_no_mistake(tmp_path):
    root = coco_folder(tmp_path)
    write(root, content(bbox=[-0.5, 0, 30.9, 20]))
    assert coco(root).train.boxes(0).xyxy[0].tolist() == pytest.approx([-0.5, 0, 30.4, 20])


def test_mending_says_what_it_did(tmp_path):
    root = coco_folder(tmp_path)
    rows = [{**content()["annotations"][0], "bbox": box} for box in ([1, 2, 0, 4], [20, 2, 20, 4], [1, 1, 5, 5])]
    write(root, {**content(), "annotations": rows})
    source = coco(root, mend=True)
    assert source.train.boxes(0).xyxy.tolist() == [[20, 2, 30, 6], [1, 1, 6, 6]]
    assert source.notes == ["1 box without area left out, 1 box cut at the edge of their image"]


def test_yolo_as_written(tmp_path):
    root = yolo_folder(tmp_path)
    label("1 0.5 0.5 0.2 0.4\n\n0 0.1 0.1 0.3 0.1 0.2 0.5\n")(root)
    source = yolo(root)
    assert source.train.boxes(0).xyxy == pytest.approx(np.array([[12, 6, 18, 14], [3, 2, 9, 10]]))
    assert source.train.boxes(0).labels.tolist() == [1, 0]
    assert list(source.val.image_ids) == [7]


def test_yolo_with_a_list_of_images(tmp_path):
    root = yolo_folder(tmp_path)
    (root / "train.txt").write_text("images/train/7.png\n")
    data(train="train.txt")(root)
    assert yolo(root).train.boxes(0).labels.tolist() == [1]


STORED = {  # what a camera held like this has saved of an upright picture, and says so in its EXIF tag
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: upright.swapaxes(0, 1),
    6: np.rot90,
    7: lambda upright: np.rot90(upright, 2).swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}
LIT = np.zeros((20, 30, 3), np.uint8)
LIT[2:8, 4:12] = 255  # the box of ``content``


def photograph(file, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(STORED[orientation](LIT))).save(file, exif=exif)


def is_lit(images):
    """Whether the box of the only image holds all that is lit, and nothing else."""
    left, top, right, bottom = images.boxes(0).xyxy[0].round().astype(int)
    pixels = np.asarray(images.image(0))
    assert pixels.shape[:2] == images.sizes[0]
    return pixels[top:bottom, left:right].min() == 255 and (pixels > 0).sum() == 3 * (bottom - top) * (right - left)


@pytest.mark.parametrize("orientation", STORED)
def test_boxes_and_pixels_agree_however_the_camera_was_held(orientation, tmp_path):
    (tmp_path / "coco").mkdir()
    root = coco_folder(tmp_path / "coco")
    photograph(root / "train" / "a.png", orientation)
    assert is_lit(coco(root).train)
    (tmp_path / "yolo").mkdir()
    root = yolo_folder(tmp_path / "yolo")
    photograph(root / "images" / "train" / "7.png", orientation)
    (root / "labels" / "train" / "7.txt").write_text(f"1 {8 / 30} {5 / 20} {8 / 30} {6 / 20}\n")
    assert is_lit(yolo(root).train)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_of_a_photograph_as_stored(orientation, tmp_path):
    """The annotations give its sides as they are stored, so that is what their boxes are for."""
    root = coco_folder(tmp_path)
    photograph(root / "train" / "a.png", orientation)
    rows, cols = np.nonzero(STORED[orientation](LIT)[..., 0])
    box = [int(cols.min()), int(rows.min()), int(np.ptp(cols)) + 1, int(np.ptp(rows)) + 1]
    write(root, {**images(width=20, height=30), "annotations": content(box)["annotations"]})
    assert is_lit(coco(root).train)


def test_a_list_of_images_names_one_that_is_not_there(tmp_path):
    root = yolo_folder(tmp_path)
    (root / "train.txt").write_text("images/train/8.png\n")
    data(train="train.txt")(root)
    with pytest.raises(DataError, match=r"8\.png is not there"):
        yolo(root)
