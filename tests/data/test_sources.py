"""The sources: shapes, splits, and images that do not depend on who reads them."""

import numpy as np
import torch
from PIL import Image

from dropkey.data.augmentation import Augmented, Clean, ImageFormat, clean_transform, train_transform
from dropkey.data.folder import folder
from dropkey.data.sources import load_source


def test_digits_split_is_fixed_and_stratified():
    one, two = load_source("digits"), load_source("digits")
    assert (len(one.train), len(one.val)) == (1437, 360)
    labels = [one.val[index][1] for index in range(360)]
    assert labels == [two.val[index][1] for index in range(360)]
    assert {labels.count(digit) for digit in range(10)} <= {34, 35, 36, 37}
    image, _ = one.train[0]
    assert (image.size, image.mode) == ((8, 8), "RGB")
    assert max(np.asarray(one.train[index][0]).max() for index in range(20)) == 255


def test_no_image_is_in_both_splits():
    source = load_source("digits")
    train = {source.train[index][0].tobytes() for index in range(len(source.train))}
    assert not any(source.val[index][0].tobytes() in train for index in range(len(source.val)))


def test_folder_reads_any_size_and_mode(tmp_path):
    for split in ("train", "val"):
        for name, mode, size in (("a", "L", (9, 30)), ("b", "RGBA", (40, 12)), ("c", "P", (5, 5))):
            (tmp_path / split / name / "deep").mkdir(parents=True)
            Image.new(mode, size).save(tmp_path / split / name / "deep" / "x.PNG")
    source = folder(tmp_path)
    assert list(source.classes) == ["a", "b", "c"]
    for size in (8, 96):
        transforms = clean_transform(ImageFormat(size)), train_transform(ImageFormat(size), shifts=True, flips=True)
        for index in range(3):
            for transform in transforms:
                assert transform(source.train[index][0]).shape == (3, size, size)


def test_augmentation_depends_on_seed_epoch_and_index_alone():
    source = load_source("digits")
    transform = train_transform(ImageFormat(8), shifts=True, flips=True)
    one, other = Augmented(source.train, transform, seed=1), Augmented(source.train, transform, seed=2)
    before = [one[0, index][0] for index in range(8)]
    torch.manual_seed(99)
    torch.rand(7)
    assert all(torch.equal(one[0, index][0], image) for index, image in reversed(list(enumerate(before))))
    assert any(not torch.equal(one[1, index][0], image) for index, image in enumerate(before))
    assert any(not torch.equal(other[0, index][0], image) for index, image in enumerate(before))


def test_clean_images_are_the_chosen_ones_unchanged():
    source = load_source("digits")
    clean = Clean(source.train, clean_transform(ImageFormat(8)), [5, 3])
    image, label = clean[1]
    assert len(clean) == 2
    assert label == source.train[3][1]
    pixels = np.asarray(source.train[3][0])[:, :, 0] / 255
    np.testing.assert_allclose(image[0].numpy(), pixels * 2 - 1, atol=1e-6)
