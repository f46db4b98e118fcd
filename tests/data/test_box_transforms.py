"""Boxes stay on what they are of, whatever training does to the image; crowds are not learned."""

import numpy as np
import pytest
import torch

from dropkey.data.box_transforms import BoxAugmentation, DetectorInput, detector_batch, train_example, train_steps
from dropkey.data.boxed_images import Boxes

PLAIN = DetectorInput((96, 96), False, (0.0,) * 3, (1.0,) * 3)
LIT = (24, 12, 60, 36)  # the corners of what is lit in 64 rows and 80 columns


def example(augmentation=None, wanted=PLAIN, is_crowd=(False,)):
    pixels = np.full((64, 80, 3), 20, np.uint8)
    pixels[LIT[1] : LIT[3], LIT[0] : LIT[2]] = 255
    boxes = Boxes.of([LIT] * len(is_crowd), [3] * len(is_crowd), list(is_crowd))
    steps = None if augmentation is None else train_steps(augmentation, wanted.mean)
    return train_example(pixels, boxes, 7, steps, wanted)


def lit_box(image):
    """Return center and sides of what is lit, in shares of the image."""
    rows, cols = (image.mean(0) > 0.5).nonzero(as_tuple=True)
    left, right, top, bottom = cols.min(), cols.max() + 1, rows.min(), rows.max() + 1
    height, width = image.shape[1:]
    return [
        float(value)
        for value in (
            (left + right) / 2 / width,
            (top + bottom) / 2 / height,
            (right - left) / width,
            (bottom - top) / height,
        )
    ]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", ["nothing", "flip", "photometric", "zoom_out", "iou_crop"])
def test_boxes_are_where_the_pixels_are(name, seed):
    torch.manual_seed(seed)
    image, labels, boxes, index = example(None if name == "nothing" else BoxAugmentation(**{name: 1.0}))
    assert (image.shape, index, labels.tolist()) == ((3, 96, 96), 7, [3] * len(boxes))
    if name != "iou_crop" or len(boxes):  # a cut may leave the box out
        assert boxes[0].tolist() == pytest.approx(lit_box(image), abs=0.03)


def test_every_image_is_mirrored_when_all_are_to_be():
    _, _, boxes, _ = example(BoxAugmentation(flip=1.0))
    assert boxes[0].tolist() == pytest.approx([1 - 42 / 80, 24 / 64, 36 / 80, 24 / 64])


def test_crowds_are_left_out():
    assert len(example(is_crowd=(False, True))[2]) == 1


@pytest.mark.parametrize(
    ("sides", "expected"), [((96, 200), (96, 120)), ((96, 100), (80, 100)), ((200, 96), (96, 120))]
)
def test_padded_images_keep_their_shape(sides, expected):
    """64 x 80: the shorter side fits the shorter, the longer the longer, whichever comes first."""
    wanted = DetectorInput(sides, True, (0.0,) * 3, (1.0,) * 3)
    image = example(wanted=wanted)[0]
    assert tuple(image.shape[1:]) == expected
    other = torch.ones(3, 10, 150), torch.zeros(0, dtype=torch.long), torch.zeros(0, 4), 8
    batch = detector_batch([(image, torch.tensor([3]), torch.zeros(1, 4), 7), other])
    assert batch["pixel_values"].shape[2:] == batch["pixel_mask"].shape[1:] == (expected[0], max(expected[1], 150))
    assert batch["pixel_mask"].sum((1, 2)).tolist() == [expected[0] * expected[1], 1500]
    assert (batch["pixel_values"].amax(1) * (1 - batch["pixel_mask"])).max() == 0
    assert batch["indices"].tolist() == [7, 8]
