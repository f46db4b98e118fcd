"""Batches for Lightning: augmented training images, clean validation images and clean training images."""

from typing import Any

import lightning.pytorch as pl
from torch.utils.data import DataLoader

from dropkey.data.augmentation import Augmentation, Augmented, Clean, ImageFormat, clean_transform, train_transform
from dropkey.data.order import EpochOrder
from dropkey.data.source import ImageSource, LabeledImages
from dropkey.errors import RunError

__all__ = ["ImageData"]

_MAX_CLEAN_TRAIN = 10_000  # training images on which accuracy is measured, spread evenly over all


class ImageData(pl.LightningDataModule):
    """A source as batches.

    The validation batches come as two loaders: validation images, then clean training images.

    Args:
        source: the images.
        image_format: what the model takes.
        augmentation: how training changes images.
        batch_size: images a batch and process.
        seed: seed of the run.
        workers: processes that read images, beside each training process.
    """

    def __init__(
        self,
        source: ImageSource,
        image_format: ImageFormat,
        augmentation: Augmentation,
        batch_size: int,
        seed: int,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.source = source
        self.image_format = image_format
        self.augmentation = augmentation
        self.batch_size = batch_size
        self.seed = seed
        self.workers = workers
        self.start: tuple[int, int] = (0, 0)  # (epoch, batch) to begin with

    def train_dataloader(self) -> DataLoader[Any]:
        rank, world_size = self._place()
        order = EpochOrder(len(self.source.train), self.seed, rank, world_size)
        batch_size = min(self.batch_size, len(order))
        order.start_at(self.start[0], self.start[1] * batch_size)
        dataset = Augmented(self.source.train, train_transform(self.image_format, self.augmentation), self.seed)
        return self._loader(dataset, batch_size=batch_size, sampler=order, drop_last=True)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        train_size = len(self.source.train)
        step = -(-train_size // _MAX_CLEAN_TRAIN)
        return [
            self._clean_loader(self.source.val, range(len(self.source.val))),
            self._clean_loader(self.source.train, range(0, train_size, step)),
        ]

    def _clean_loader(self, images: LabeledImages, indices: range) -> DataLoader[Any]:
        rank, world_size = self._place()
        if len(indices) < world_size:
            raise RunError(f"{len(indices)} images to evaluate are too few for {world_size} processes: use fewer")
        mine = indices[rank::world_size]
        count = -(-len(range(0, len(indices), world_size)) // (2 * self.batch_size))
        dataset = Clean(images, clean_transform(self.image_format), mine)
        return self._loader(dataset, batch_sampler=_even_batches(len(mine), count))

    def _loader(self, dataset: Any, **kwargs: Any) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            **kwargs,
        )

    def _place(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)


def _even_batches(size: int, count: int) -> list[range]:
    """Split places into ``count`` batches that differ by one at most, as many in every process: they act together."""
    return [range(size * batch // count, size * (batch + 1) // count) for batch in range(count)]
