"""The published annotations themselves, where DROPKEY_PUBLISHED names a folder that holds them: nothing is downloaded.

``hico_det/instances_test2015.json``; and ``vcoco/`` with ``instances_vcoco_trainval.json``,
``instances_vcoco_test.json`` and some of COCO's images of 2014, below their names of 2014 or of 2017.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dropkey.data.hico_det import hico_det
from dropkey.data.vcoco import vcoco
from dropkey.tasks.interaction.interactions import true_pairs
from dropkey.tasks.interaction.metrics import Pairs, hico_det_ap, vcoco_role_ap
from dropkey.tasks.interaction.protocols import protocol_of

pytestmark = pytest.mark.slow


def published(*parts):
    file = Path(os.environ.get("DROPKEY_PUBLISHED", "nowhere"), *parts)
    if not file.exists():
        pytest.skip(f"no {file}: see the head of this file")
    return file


def as_predictions(truth):
    scores = np.ones(len(truth))
    return Pairs(truth.images, truth.subjects, truth.object_boxes, truth.objects, truth.verbs, scores)


@pytest.fixture(scope="module")
def hico(tmp_path_factory):
    """All test images of HICO-DET, with one gray picture for each: what is read is the annotations."""
    file = published("hico_det", "instances_test2015.json")
    root = tmp_path_factory.mktemp("hico")
    gray = root / "gray.jpg"
    Image.new("RGB", (640, 640)).save(gray)
    for name in ("train2015", "test2015"):
        (root / f"instances_{name}.json").symlink_to(file)
    (root / "images").mkdir()
    for name in json.loads(file.read_text())["filenames"]:
        (root / "images" / name).symlink_to(gray)
    return hico_det(root)


def test_numbers_of_hico_det(hico):
    protocol = protocol_of(hico)
    assert (len(protocol.triplets), len(protocol.real)) == (600, 520)
    assert (len(protocol.rare), len(protocol.triplets) - len(protocol.rare)) == (138, 462)
    assert len(hico.val.sizes) == 9_658
    truth = true_pairs(hico.val, range(len(hico.val.sizes)))
    assert len(truth) == 33_405


@pytest.mark.parametrize("setting", ["default", "known_object"])
@pytest.mark.parametrize("interpolation", ["11-point", "all-point"])
def test_the_truth_of_hico_det_is_perfect(setting, interpolation, hico):
    protocol = protocol_of(hico)
    truth = true_pairs(hico.val, range(len(hico.val.sizes)))
    ap = hico_det_ap(
        truth, as_predictions(truth), protocol.triplets, protocol.rare, setting=setting, interpolation=interpolation
    )
    assert (ap.full, ap.rare, ap.non_rare) == (1.0, 1.0, 1.0)


def test_photographs_of_vcoco():
    """Boxes lie in their photographs, and the truth is perfect in both scenarios."""
    source = vcoco(published("vcoco"), broken="skip")
    for images in (source.train, source.val):
        for index, (rows, cols) in enumerate(images.sizes):
            assert np.asarray(images.image(index)).shape == (rows, cols, 3)
            xyxy = images.boxes(index).xyxy
            assert (xyxy >= -1).all()
            assert (xyxy <= np.array([cols, rows, cols, rows]) + 1).all()
        truth = true_pairs(images, range(len(images.sizes)))
        ap = vcoco_role_ap(truth, as_predictions(truth), list(source.roles))
        assert (ap.scenario_1, ap.scenario_2) == (1.0, 1.0)
