"""Labeled images as batches: augmented in training, clean in evaluation."""

from collections.abc import Sequence

from torch import Tensor
from torch.utils.data import Dataset

from dropkey.data.augmentation import Augmentation, Augmented, Clean, ImageFormat, clean_transform, train_transform
from dropkey.data.batches import RunData, Split
from dropkey.data.overview import images_in_words
from dropkey.data.source import ImageSource
from dropkey.errors import RunError

__all__ = ["ImageData"]


class ImageData(RunData):
    """A source as batches.

    Args:
        source: the images.
        image_format: what the model takes.
        augmentation: how training changes images.
        batch_size: images per batch and process.
        seed: seed of the run.
        workers: processes that read images, beside each training process.
        pairs: whether training mixes the images of a batch in pairs, so that batches must be even.
    """

    def __init__(
        self,
        source: ImageSource,
        image_format: ImageFormat,
        augmentation: Augmentation,
        batch_size: int,
        seed: int,
        workers: int = 0,
        pairs: bool = False,
    ) -> None:
        super().__init__((len(source.train), len(source.val)), batch_size, seed, workers)
        self.source = source
        self.image_format = image_format
        self.augmentation = augmentation
        self.pairs = pairs

    def train_dataset(self) -> Dataset[tuple[Tensor, int]]:
        return Augmented(self.source.train, train_transform(self.image_format, self.augmentation), self.seed)

    def clean_dataset(self, split: Split, indices: Sequence[int]) -> Dataset[tuple[Tensor, int]]:
        images = self.source.train if split == "train" else self.source.val
        return Clean(images, clean_transform(self.image_format), indices)

    def fingerprint(self) -> str:
        return self.source.fingerprint()

    def overview(self, world_size: int = 1) -> list[str]:
        return [*images_in_words(self.source, self.image_format, self.augmentation), self.epoch_in_words(world_size)]

    def train_batch_size(self, num_images: int) -> int:
        size = super().train_batch_size(num_images)
        if self.pairs and size < 2:
            raise RunError("mixup and cutmix mix images in pairs, and a process has one: --mixup 0 --cutmix 0")
        return size - size % 2 if self.pairs else size
