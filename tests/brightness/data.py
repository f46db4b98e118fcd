"""Its source and its batches."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from dropkey.data.batches import RunData, Split


def noise(count: int, seed: int) -> TensorDataset:
    """Return images of random brightness, and their mean gray levels in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.rand(count, 1, 1, 1, generator=generator)
    images = (levels + torch.randn(count, 3, 8, 8, generator=generator) / 10).clamp(0, 1)
    return TensorDataset(images, images.mean((1, 2, 3)))


class ByEpoch(Dataset[tuple[Tensor, ...]]):
    """Training images by (epoch, index); an augmentation would depend on both."""

    def __init__(self, images: TensorDataset) -> None:
        self.images = images

    def __getitem__(self, place: tuple[int, int]) -> tuple[Tensor, ...]:
        return self.images[place[1]]


class BrightnessData(RunData):
    def __init__(self, source: dict[str, TensorDataset], batch_size: int, seed: int, workers: int) -> None:
        super().__init__((len(source["train"]), len(source["val"])), batch_size, seed, workers)
        self.source = source

    def train_dataset(self) -> Dataset[tuple[Tensor, ...]]:
        return ByEpoch(self.source["train"])

    def clean_dataset(self, split: Split, indices: Sequence[int]) -> Dataset[tuple[Tensor, ...]]:
        return Subset(self.source[split], indices)
