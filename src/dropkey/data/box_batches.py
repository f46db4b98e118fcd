"""Images with boxes as batches: augmented in training, clean in evaluation."""

from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset

from dropkey.data.batches import RunData, Split
from dropkey.data.box_transforms import (
    BoxAugmentation,
    DetectorInput,
    Example,
    clean_example,
    detector_batch,
    train_example,
    train_steps,
)
from dropkey.data.boxed_images import BoxedImages, DetectionSource
from dropkey.data.order import Place
from dropkey.data.pixel_cache import PixelCache
from dropkey.data.seeds import seed_cpu

__all__ = ["BoxData"]


class BoxData(RunData):
    """A source as batches.

    Args:
        source: the images.
        wanted: what the model takes.
        augmentation: how training changes images.
        batch_size: images per batch and process.
        seed: seed of the run.
        workers: processes that read images, beside each training process.
        cache_mb: megabytes of decoded images that are kept in memory.
    """

    def __init__(
        self,
        source: DetectionSource,
        wanted: DetectorInput,
        augmentation: BoxAugmentation,
        batch_size: int,
        seed: int,
        workers: int = 0,
        cache_mb: float = 0.0,
    ) -> None:
        splits = {"train": source.train, "val": source.val}
        super().__init__((len(source.train.sizes), len(source.val.sizes)), batch_size, seed, workers)
        self.source = source
        self.wanted = wanted
        self.augmentation = augmentation
        self.max_clean_train = max(self.sizes["val"], batch_size)  # as dear as validation, and no dearer
        self.pixels = {split: PixelCache(images, cache_mb) for split, images in splits.items()}

    @staticmethod
    def collate(examples: list[Example]) -> dict[str, Any]:
        return detector_batch(examples)

    def train_dataset(self) -> Dataset[Example]:
        return _Augmented(self.source.train, self.pixels["train"], self.augmentation, self.wanted, self.seed)

    def clean_dataset(self, split: Split, indices: Sequence[int]) -> Dataset[Example]:
        images = self.source.train if split == "train" else self.source.val
        return _Clean(images, self.pixels[split], self.wanted, indices)


class _Augmented(Dataset[Example]):
    """Training images, each augmented by random numbers that depend on (seed, epoch, index) alone."""

    def __init__(
        self,
        images: BoxedImages,
        pixels: PixelCache,
        augmentation: BoxAugmentation,
        wanted: DetectorInput,
        seed: int,
    ) -> None:
        self.images = images
        self.pixels = pixels
        self.steps = train_steps(augmentation, wanted.mean)
        self.wanted = wanted
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images.sizes)

    def __getitem__(self, place: Place) -> Example:
        epoch, index = place
        pixels = self.pixels[index]
        seed_cpu(self.seed, "augmentation", epoch, index)
        return train_example(pixels, self.images.boxes(index), index, self.steps, self.wanted)


class _Clean(Dataset[Example]):
    """Images as evaluation sees them, those at some indices, in their order."""

    def __init__(self, images: BoxedImages, pixels: PixelCache, wanted: DetectorInput, indices: Sequence[int]) -> None:
        self.images = images
        self.pixels = pixels
        self.wanted = wanted
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Example:
        index = self.indices[place]
        return clean_example(self.pixels[index], self.images.boxes(index), index, self.wanted)
