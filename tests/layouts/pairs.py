"""Small folders in the layouts of HICO-DET and V-COCO, drawn on the fly."""

import json

import numpy as np
from PIL import Image

PERSON, CUP_ID, HORSE_ID = 1, 47, 19  # COCO's ids
HOLD, RIDE = 37, 77  # HICO-DET's verbs, numbered from 1


def image_file(path, size=(60, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def listed(name, boxes=None, rows=None):
    """An image of a list: a person with a cup beside a horse, by default."""
    if boxes is None:
        boxes = [(PERSON, [2, 2, 20, 38]), (CUP_ID, [18, 10, 26, 18]), (HORSE_ID, [30, 5, 58, 38])]
    rows = [(0, 1, HOLD)] if rows is None else rows
    return {
        "file_name": name,
        "annotations": [{"category_id": number, "bbox": box} for number, box in boxes],
        "hoi_annotation": [{"subject_id": s, "object_id": o, "category_id": v} for s, o, v in rows],
    }


def hico_lists(root, train=None, val=None, table=None):
    """HICO-DET as QPIC reads it."""
    train = [listed("a.jpg"), listed("b.jpg", rows=[])] if train is None else train
    val = [listed("c.jpg")] if val is None else val
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for entries, file, folder in ((train, "trainval_hico", "train2015"), (val, "test_hico", "test2015")):
        (root / "annotations" / f"{file}.json").write_text(json.dumps(entries))
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and isinstance(entry.get("file_name"), str):
                image_file(root / "images" / folder / entry["file_name"])
    possible = np.ones((117, 80)) if table is None else table
    np.save(root / "annotations" / "corre_hico.npy", possible)
    return root


def vcoco_lists(root, rows=((0, 1, 0), (0, -1, 1))):
    """V-COCO as QPIC reads it: somebody holds a cup, and stands."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for file, name in (("trainval_vcoco", "COCO_train2014_000000000009.jpg"), ("test_vcoco", "COCO_val2014_2.jpg")):
        entry = listed(name, rows=list(rows))
        (root / "annotations" / f"{file}.json").write_text(json.dumps([entry]))
        image_file(root / "images" / name.split("_")[1] / name)
    np.save(root / "annotations" / "corre_vcoco.npy", np.ones((29, 80)))
    return root


def hico_content(images=2, **changes):
    """A file of instances of HICO-DET; the last image has no pair."""
    row = {"boxes_h": [[2, 2, 20, 38]], "boxes_o": [[18, 10, 26, 18]], "hoi": [0], "object": [1], "verb": [0]}
    none = {key: [] for key in row}
    return {
        "annotation": [row] * (images - 1) + [none],
        "filenames": [f"HICO_{place}.jpg" for place in range(images)],
        "empty": [images - 1],
        "objects": ["person", "cup"],
        "verbs": ["hold", "wash"],
        "correspondence": [[0, 1, 0], [1, 1, 1]],
        "size": [[60, 40]] * images,
        "rare": [1],
        "non_rare": [0],
        **changes,
    }


def hico_instances(root, train=None, test=None):
    """HICO-DET in files of instances."""
    root.mkdir(parents=True, exist_ok=True)
    for split, content in (("train", train or hico_content()), ("test", test or hico_content())):
        (root / f"instances_{split}2015.json").write_text(json.dumps(content))
        for name in content.get("filenames", []):
            image_file(root / "images" / f"{split}2015" / str(name))
    return root


def vcoco_content(**changes):
    """A file of instances of V-COCO; the second image has no pair."""
    row = {"boxes_h": [[2, 2, 20, 38]] * 2, "boxes_o": [[18, 10, 26, 18]] * 2, "actions": [0, 1], "objects": [2, 2]}
    none = {key: [] for key in row}
    return {
        "annotations": [
            {**row, "file_name": "COCO_train2014_000000000009.jpg"},
            {**none, "file_name": "COCO_train2014_000000000025.jpg"},
        ],
        "classes": ["hold obj", "read obj"],
        "objects": ["background", "person", "cup"],
        "images": [9, 25],
        "action_to_object": [[2], [2]],
        **changes,
    }


def vcoco_instances(root, content=None, names="2014"):
    """V-COCO in files of instances, with images under COCO's names of 2014 or 2017."""
    content = content or vcoco_content()
    root.mkdir(parents=True, exist_ok=True)
    for split in ("trainval", "test"):
        (root / f"instances_vcoco_{split}.json").write_text(json.dumps(content))
    for entry in content["annotations"]:
        name = entry["file_name"] if names == "2014" else entry["file_name"].rpartition("_")[2]
        image_file(root / "images" / name)
    return root
