"""What a run says of its images before it starts."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dropkey.data.augmentation import Augmentation, ImageFormat
from dropkey.data.folder import folder
from dropkey.data.loaders import ImageData
from dropkey.data.sources import load_source
from dropkey.errors import RunError

PLAIN = Augmentation()


def tree(root, sizes=((40, 30), (640, 480))):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for count, size in enumerate(sizes):
                Image.new("RGB", size).save(root / split / name / f"{count}.png")
    return folder(root)


def overview(source, side=32, augmentation=PLAIN, batch_size=3, world_size=1, **options):
    return ImageData(source, ImageFormat(side), augmentation, batch_size, seed=0, **options).overview(world_size)


def test_of_the_digits():
    source = load_source("digits")
    lines = overview(source, 8, Augmentation(shifts=False, flips=False), 64)
    assert lines == [
        "images: 1,437 for training, 360 for validation, of 10 classes (digits)",
        "sizes: 8 x 8 pixels",
        "augmentation: no shifts, no mirroring",
        "an epoch: 22 batches of 64; left over, others in each epoch: 29",
    ]


def test_of_a_folder(tmp_path):
    tree(tmp_path)
    (tmp_path / "train" / "cat" / "x.heic").write_bytes(b"")
    lines = overview(folder(tmp_path), 224, Augmentation(rand_augment=9, color_jitter=0.4, random_erasing=0.25))
    assert lines == [
        "images: 4 for training, 4 for validation, of 2 classes (folder)",
        f"left out: .heic files: 1 ({tmp_path}/train/cat/x.heic)",
        "sizes: 40 x 30 to 640 x 480 pixels, brought to 224 x 224 (width x height)",
        "augmentation: random crops of 30% to 100% of the area, mirroring, RandAugment of magnitude 9, "
        "color jitter of 0.4, erasing in 25% of the images",
        "an epoch: 1 batch of 3; left over, others in each epoch: 1",
    ]


@pytest.mark.parametrize(
    ("size", "side", "said"), [(640, 32, True), (640, 224, False), (127, 32, False), (128, 32, True)]
)
def test_photographs_at_the_size_of_icons(size, side, said, tmp_path):
    lines = overview(tree(tmp_path, [(size, size)] * 2), side)
    assert any("most of what they show is lost" in line and f"the model sees {side}" in line for line in lines) == said


def test_sizes_that_no_file_says(tmp_path):
    source = tree(tmp_path, [(9, 9)])
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    assert "sizes: unknown, brought to 32 x 32 pixels" in overview(source)


@settings(max_examples=40)
@given(st.integers(1, 60), st.integers(1, 70), st.integers(1, 4), st.booleans())
def test_batches_are_those_of_training(count, batch_size, world_size, pairs):
    """What is said adds up, and batches are even where images are mixed in pairs."""
    digits = load_source("digits")
    digits.train.labels = digits.train.labels[:count]
    data = ImageData(digits, ImageFormat(8), Augmentation(), batch_size, seed=0, pairs=pairs)
    share = count // world_size
    if share < 1:
        return
    if pairs and min(share, batch_size) < 2:
        with pytest.raises(RunError, match="mix images in pairs"):
            data.train_batch_size(share)
        return
    size = data.train_batch_size(share)
    assert 1 <= size <= min(share, batch_size)
    assert size >= min(share, batch_size) - pairs
    assert not (pairs and size % 2)
    if world_size == 1:
        batches = list(data.train_dataloader())
        said = data.overview()[-1]
        assert f"an epoch: {len(batches)} batch" in said
        assert f"of {size}" in said
        assert {len(labels) for _, labels in batches} == {size}
        rest = count - size * len(batches)
        assert (f"in each epoch: {rest}" in said) == (rest > 0)
