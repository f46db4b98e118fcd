"""The sources: shapes, splits, and images that do not depend on who reads them."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from dropkey.data.augmentation import Augmentation, Augmented, Clean, ImageFormat, clean_transform, train_transform
from dropkey.data.folder import folder
from dropkey.data.sources import load_source
from dropkey.errors import DataError


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
        transforms = clean_transform(ImageFormat(size)), train_transform(ImageFormat(size), Augmentation())
        for index in range(3):
            for transform in transforms:
                assert transform(source.train[index][0]).shape == (3, size, size)


EVERYTHING = Augmentation(rand_augment=9, color_jitter=0.4, random_erasing=0.5)


@pytest.mark.parametrize("augmentation", [Augmentation(), EVERYTHING], ids=["simple", "everything"])
def test_augmentation_depends_on_seed_epoch_and_index_alone(augmentation):
    source = load_source("digits")
    transform = train_transform(ImageFormat(8), augmentation)
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


PUBLISHED = {"fashion_mnist": "FashionMNIST/raw", "cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}


@pytest.mark.parametrize(("name", "files"), PUBLISHED.items())
def test_what_to_put_where_without_a_network(name, files, tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(DataError) as error:
        load_source(name, tmp_path)
    assert str(tmp_path / files) in str(error.value)
    assert "no route to host" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_cifar10_is_read_where_it_was_put(tmp_path, monkeypatch):
    folder_of_files = tmp_path / "cifar-10-batches-py"
    folder_of_files.mkdir()
    rng = np.random.default_rng(0)
    names = [f"data_batch_{count}" for count in range(1, 6)] + ["test_batch"]
    for name in names:
        content = {"data": rng.integers(0, 256, (4, 3072), dtype=np.uint8), "labels": [0, 1, 2, 9]}
        (folder_of_files / name).write_bytes(pickle.dumps(content))
    (folder_of_files / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
    source = load_source("cifar10", tmp_path)
    assert (len(source.train), len(source.val), len(source.classes)) == (20, 4, 10)
    image, label = source.train[3]
    assert (image.size, image.mode, label) == ((32, 32), "RGB", 9)


def test_imagenet_says_what_to_put_where(tmp_path):
    with pytest.raises(DataError, match=r"image-net\.org"):
        load_source("imagenet", tmp_path)
    for split in ("train", "val"):
        for name in ("n01", "n02"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / split / name / "x.JPEG")
    with pytest.raises(DataError, match=r"not 1,000"):
        load_source("imagenet", tmp_path)


@pytest.mark.parametrize("size", [8, 96])
def test_without_random_crops_training_sees_what_evaluation_sees(size):
    source = load_source("digits")
    image_format = ImageFormat(size)
    still = train_transform(image_format, Augmentation(crops=False, flips=False))
    moved = train_transform(image_format, Augmentation(flips=False))
    clean = clean_transform(image_format)
    images = [source.train[index][0] for index in range(4)]
    assert all(torch.equal(still(image), clean(image)) for image in images)
    assert not all(torch.equal(moved(image), clean(image)) for image in images)
