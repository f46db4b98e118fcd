"""Average precision against pycocotools, from the annotation file to the file of predictions."""

import contextlib
import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import cocoeval
from pycocotools.coco import COCO

from dropkey.data.boxed_images import Boxes
from dropkey.data.coco import coco
from dropkey.tasks.detection.average_precision import average_precision
from dropkey.tasks.detection.detections import Detections
from dropkey.tasks.detection.predictions import write_predictions

SIDE = 300


def random_box(rng):
    width, height = rng.choice([8, 20, 40, 70, 120, 200], 2) * rng.uniform(0.7, 1.3, 2)
    left, top = rng.uniform(0, SIDE - width), rng.uniform(0, SIDE - height)
    return [float(left), float(top), float(width), float(height)]


def annotations(rng, image_ids, category_ids, most, crowds):
    rows = []
    for image_id in image_ids:
        for _ in range(rng.integers(0, most + 1)):
            box = random_box(rng)
            row = {"id": len(rows) + 7, "image_id": image_id, "category_id": int(rng.choice(category_ids)), "bbox": box}
            row["iscrowd"] = int(rng.random() < crowds)
            row["area"] = box[2] * box[3] * rng.uniform(0.5, 1.0)
            rows.append(row)
    return rows


def written(root, image_ids, category_ids, rows):
    """A folder in COCO's layout whose training and validation files are the same."""
    (root / "annotations").mkdir()
    (root / "images").mkdir()
    images = [{"id": i, "file_name": f"{i}.png", "width": SIDE, "height": SIDE} for i in image_ids]
    for image in images:
        Image.new("RGB", (SIDE, SIDE)).save(root / "images" / image["file_name"])
    categories = [{"id": i, "name": f"kind {i}"} for i in category_ids]
    content = json.dumps({"images": images, "annotations": rows, "categories": categories})
    for split in ("train", "val"):
        (root / "annotations" / f"instances_{split}.json").write_text(content)
    return root


def guesses(rng, truth, index, num_classes, share):
    """Boxes near the true ones, of the true class more often than not, and some out of the blue."""
    boxes, labels = [], []
    for xyxy, label in zip(truth.xyxy, truth.labels, strict=True):
        for _ in range(rng.integers(0, 3)):
            boxes.append(xyxy + rng.normal(0, 4, 4))
            labels.append(label if rng.random() < 0.7 else rng.integers(num_classes))
    for _ in range(rng.integers(0, 6)):
        left, top, width, height = random_box(rng)
        boxes.append([left, top, left + width, top + height])
        labels.append(rng.integers(num_classes))
    if rng.random() > share:
        boxes, labels = [], []
    boxes = np.asarray(boxes, dtype=float).reshape(-1, 4)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    scores = np.sort(rng.integers(1, 40, len(boxes)) / 40)[::-1]  # with ties
    return Detections(index, scores, np.asarray(labels, dtype=int), boxes)


def reference(root, predictions):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(root / "annotations" / "instances_val.json"))
        results = json.loads(predictions.read_text())
        found = truth.loadRes(results) if results else COCO()
        if not results:
            found.dataset = {"images": truth.dataset["images"], "annotations": [], "categories": []}
            found.createIndex()
        evaluation = cocoeval.COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


CASES = {  # image ids, category ids, most boxes an image, share of crowds, share of images with predictions
    "random": (range(1, 25), [1, 2, 3], 8, 0.0, 1.0),
    "crowds": (range(1, 25), [1, 2, 3], 8, 0.3, 1.0),
    "ids with gaps": ([3, 900, 17, 42, 5, 77], [90, 4, 1000], 6, 0.1, 1.0),
    "one class": (range(12), [0], 5, 0.1, 0.8),
    "no predictions": (range(6), [1, 2], 4, 0.0, 0.0),
    "hardly any boxes": (range(20), [1, 2, 3, 4, 5, 6, 7], 1, 0.0, 0.5),
    "many boxes": (range(3), [1], 130, 0.0, 1.0),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_equal_to_pycocotools(case, seed, tmp_path):
    image_ids, category_ids, most, crowds, share = CASES[case]
    rng = np.random.default_rng(seed)
    rows = annotations(rng, image_ids, category_ids, most, crowds)
    sure = {"id": 1, "image_id": image_ids[0], "category_id": category_ids[0], "bbox": [10, 10, 50, 50], "area": 2500}
    source = coco(written(tmp_path, image_ids, category_ids, [{**sure, "iscrowd": 0}, *rows]))
    num_classes = len(source.classes)
    truth = {index: source.val.boxes(index) for index in range(len(image_ids))}
    found = [guesses(rng, truth[index], index, num_classes, share) for index in truth]
    write_predictions(found, source, tmp_path / "predictions.json")
    expected = reference(tmp_path, tmp_path / "predictions.json")

    precision = average_precision(truth, found, num_classes)
    ours = [-1 if value is None else value for value in precision.summary().values()]
    assert ours == pytest.approx(expected.stats[:6], abs=1e-6)
    for label, category_id in enumerate(source.category_ids):
        curves = expected.eval["precision"][..., sorted(category_ids).index(category_id), 0, -1]
        assert source.classes[label] == f"kind {category_id}"
        for name, chosen in (("mAP", curves), ("AP50", curves[0]), ("AP75", curves[5])):
            value = precision.of_class(label)[name]
            assert (-1 if value is None else value) == pytest.approx(chosen.mean(), abs=1e-6)


def test_by_hand():
    """One object found by the second guess: precision 1/2 at every recall; the other class has nothing to find."""
    truth = {0: Boxes.of([[0, 0, 10, 10]], [1])}
    found = [Detections(0, np.array([0.9, 0.8]), np.array([1, 1]), np.array([[20.0, 20, 30, 30], [0, 0, 10, 10]]))]
    precision = average_precision(truth, found, 2)
    assert precision.summary()["AP50"] == 0.5
    assert precision.of_class(0) == {"mAP": None, "AP50": None, "AP75": None}
    assert precision.over_recall() == [0.5] * 101


def test_nothing_to_find_is_none_and_not_a_number():
    precision = average_precision({0: Boxes.of([], [])}, [], 3)
    assert set(precision.summary().values()) == {None}
    assert precision.over_recall() == []
