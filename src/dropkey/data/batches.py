"""Batches of any task for Lightning: the order of training, what evaluation sees, and how processes share both."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import lightning.pytorch as pl
from torch.utils.data import DataLoader, Dataset, default_collate

from dropkey.data.order import EpochOrder
from dropkey.errors import RunError

__all__ = ["RunData", "Split"]

Split = Literal["train", "val"]


class RunData(pl.LightningDataModule, ABC):
    """Training and evaluation data as batches; a resumed run goes on where the order stood.

    A subclass defines ``train_dataset`` and ``clean_dataset``. Evaluation comes as two loaders: validation data, then
    clean training data.

    Args:
        sizes: number of training and of validation examples.
        batch_size: examples per training batch and process; ``eval_batch_size`` is twice that at first.
        seed: seed of the run.
        workers: processes that read the data, beside each training process.
    """

    max_clean_train = 10_000  # training examples that are measured without augmentation, spread evenly over all

    def __init__(self, sizes: tuple[int, int], batch_size: int, seed: int, workers: int = 0) -> None:
        super().__init__()
        self.sizes = {"train": sizes[0], "val": sizes[1]}
        self.batch_size = batch_size
        self.eval_batch_size = 2 * batch_size
        self.seed = seed
        self.workers = workers
        self.start: tuple[int, int] = (0, 0)  # (epoch, batch) to begin with

    @staticmethod
    def collate(examples: list[Any]) -> Any:
        """Return examples as a batch: torch's own way, where a task does not say another."""
        return default_collate(examples)

    @abstractmethod
    def train_dataset(self) -> Dataset[Any]:
        """Return the training examples, augmented; they are asked for by (epoch, index), see ``EpochOrder``."""

    @abstractmethod
    def clean_dataset(self, split: Split, indices: Sequence[int]) -> Dataset[Any]:
        """Return the examples at these indices, in this order, as evaluation sees them."""

    def train_dataloader(self) -> DataLoader[Any]:
        rank, world_size = self._place()
        order = EpochOrder(self.sizes["train"], self.seed, rank, world_size)
        batch_size = min(self.batch_size, len(order))
        order.start_at(self.start[0], self.start[1] * batch_size)
        return self._loader(self.train_dataset(), batch_size=batch_size, sampler=order, drop_last=True)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        train_size = self.sizes["train"]
        spread = range(0, train_size, -(-train_size // self.max_clean_train))
        return [self._clean_loader("val", range(self.sizes["val"])), self._clean_loader("train", spread)]

    def _clean_loader(self, split: Split, indices: range) -> DataLoader[Any]:
        rank, world_size = self._place()
        if len(indices) < world_size:
            raise RunError(f"too few examples to evaluate ({len(indices)}) for {world_size} processes: use fewer")
        mine = indices[rank::world_size]
        count = -(-len(range(0, len(indices), world_size)) // self.eval_batch_size)
        return self._loader(self.clean_dataset(split, mine), batch_sampler=_even_batches(len(mine), count))

    def _loader(self, dataset: Dataset[Any], **kwargs: Any) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            num_workers=self.workers,
            collate_fn=self.collate,
            persistent_workers=self.workers > 0,
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            **kwargs,
        )

    def _place(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)


def _even_batches(size: int, count: int) -> list[range]:
    """Split places into ``count`` batches that differ by one at most, as many in every process: they act together."""
    return [range(size * batch // count, size * (batch + 1) // count) for batch in range(count)]
