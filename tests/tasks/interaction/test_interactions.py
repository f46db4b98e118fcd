"""From a network's pairs to the interactions that are measured and saved."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from oracles import interaction as oracle

from dropkey.data import digit_pairs as drawn
from dropkey.data.digit_pairs import digit_pairs
from dropkey.tasks.interaction.found_pairs import FoundPairs
from dropkey.tasks.interaction.interactions import Interactions, best_interactions, joined, true_pairs, unpaired_persons
from dropkey.tasks.interaction.predictions import write_predictions
from dropkey.tasks.interaction.protocols import protocol_of, table

IMAGES = 6


@pytest.fixture(scope="module")
def source():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawn, "_SCENES", {"train": 4, "val": IMAGES})
        yield digit_pairs()


@pytest.fixture(scope="module")
def guesses(source):
    """The truth, moved a little or a lot, with scores, and some verbs that do not hold."""
    random = np.random.default_rng(0)
    truth = true_pairs(source.val, range(IMAGES))
    count = 2 * len(truth)
    twice = np.arange(count) % len(truth)
    moved = [boxes[twice] + random.normal(0, 3, (count, 4)) for boxes in (truth.subjects, truth.object_boxes)]
    verbs = np.where(np.arange(count) < len(truth), truth.verbs[twice], random.integers(0, 7, count))
    queries = np.stack([twice, twice], 1)
    found = Interactions(truth.images[twice], *moved, truth.objects[twice], verbs, random.uniform(size=count), queries)
    order = np.lexsort((-found.scores, found.images))
    return Interactions(*(column[order] for column in found))


def test_saved_predictions_have_the_measure_that_is_told(source, guesses, tmp_path):
    """Read as the published evaluators do, and counted by the oracle."""
    write_predictions(guesses, source, tmp_path / "predictions.json")
    rows = []
    for index, image in enumerate(json.loads((tmp_path / "predictions.json").read_text())):
        assert image["file_name"] == source.val.file_names[index]
        for hoi in image["hoi_prediction"]:
            person, other = (image["predictions"][hoi[key]] for key in ("subject_id", "object_id"))
            assert person["category_id"] == 0
            row = {"image": index, "subject": person["bbox"], "object_box": other["bbox"]}
            rows.append({**row, "object": other["category_id"], "verb": hoi["category_id"], "score": hoi["score"]})
    truth = []
    for index in range(IMAGES):
        boxes, pairs = source.val.boxes(index), source.val.pairs(index)
        for subject, other, verbs in zip(pairs.subjects, pairs.objects, pairs.verbs, strict=True):
            row = {"image": index, "subject": boxes.xyxy[subject], "object_box": boxes.xyxy[other]}
            truth += [{**row, "object": boxes.labels[other], "verb": verb} for verb in np.flatnonzero(verbs)]
    triplets = [(verb, digit) for verb in range(7) for digit in range(1, 10)]
    expected = oracle.hico_det(truth, rows, triplets)[0]
    assert 0.2 < expected < 0.95
    protocol = protocol_of(source)
    assert protocol.headline(source.val, range(IMAGES), guesses) == pytest.approx(expected, abs=1e-9)
    assert protocol.measure(source.val, range(IMAGES), guesses)["mAP"] == pytest.approx(expected, abs=1e-9)


def test_numbers_of_files_are_those_of_the_source(source, guesses, tmp_path):
    renamed = dataclasses.replace(source, category_ids=range(50, 60), verb_ids=range(1, 8))
    write_predictions(guesses, renamed, tmp_path / "predictions.json")
    images = json.loads((tmp_path / "predictions.json").read_text())
    assert {box["category_id"] for image in images for box in image["predictions"]} <= set(range(50, 60))
    verbs = [hoi["category_id"] for image in images for hoi in image["hoi_prediction"]]
    assert sorted(verbs) == sorted((guesses.verbs + 1).tolist())


def test_no_object_is_minus_one(source, tmp_path):
    none = Interactions(
        np.array([2]), np.array([[1.0, 1, 9, 9]]), np.zeros((1, 4)), np.array([0]), np.array([3]), np.array([0.5]),
        np.zeros((1, 2), int),
    )  # fmt: skip
    write_predictions(none, source, tmp_path / "predictions.json")
    image = json.loads((tmp_path / "predictions.json").read_text())[2]
    assert [hoi["object_id"] for hoi in image["hoi_prediction"]] == [-1]
    assert len(image["predictions"]) == 1


def found(scores, objects, has_object=None):
    scores = torch.tensor(scores)
    images, pairs = scores.shape[:2]
    boxes = torch.tensor([0.5, 0.25, 0.5, 0.5]).expand(images, pairs, 4)
    there = torch.ones(images, pairs, dtype=torch.bool) if has_object is None else torch.tensor(has_object)
    queries = torch.arange(pairs).view(1, -1, 1).expand(images, -1, 2)
    return FoundPairs(scores, torch.tensor(objects), there, boxes, boxes, queries)


POSSIBLE = np.array([[True, False], [True, True]])  # verbs, classes


def test_the_surest_of_an_image_that_can_be():
    pairs = found([[[0.9, 0.3], [0.8, 0.7]], [[0.1, 0.2], [0.0, 0.4]]], [[1, 0], [0, 1]])
    best = best_interactions(pairs, POSSIBLE, torch.tensor([7, 4]), [(100, 200)] * 9, most=2)
    assert best.images.tolist() == [7, 7, 4, 4]
    np.testing.assert_allclose(best.scores, [0.8, 0.7, 0.4, 0.2])  # 0.9 is a verb that class 1 cannot have
    assert (best.objects.tolist(), best.verbs.tolist()) == ([0, 0, 1, 0], [0, 1, 1, 1])
    np.testing.assert_allclose(best.subjects[0], [50, 0, 150, 50])
    assert joined([best]).images.tolist() == [4, 4, 7, 7]


def test_without_an_object_every_verb_can_be():
    pairs = found([[[0.9, 0.3]]], [[1]], [[False]])
    best = best_interactions(pairs, POSSIBLE, torch.tensor([0]), [(10, 10)])
    np.testing.assert_allclose(best.scores, [0.9, 0.3])
    assert (best.object_boxes == 0).all()


def test_persons_of_no_pair(source):
    persons = unpaired_persons(source.val, range(IMAGES), source.subject)
    alone = 0
    for index in range(IMAGES):
        boxes, pairs = source.val.boxes(index), source.val.pairs(index)
        alone += len(set(np.flatnonzero(boxes.labels == 0)) - set(pairs.subjects.tolist()))
    assert len(persons.images) == alone
    assert not persons.annotated.any()


def test_roles_are_measured_as_vcoco_does(source, guesses):
    roles = dataclasses.replace(source, roles=(0, 2, 4))
    result = protocol_of(roles).measure(source.val, range(IMAGES), guesses)
    assert list(result["roles"]) == ["above", "left_of", "touches"]
    assert result["scenario_1"] == result["scenario_2"] == result["mAP"]
    text = table(result).splitlines()
    assert text[0].split() == ["role", "AP", "scenario", "1", "scenario", "2", "pairs"]
    assert [line.split()[0] for line in text[1:]] == ["mean", "above", "left", "touches"]
