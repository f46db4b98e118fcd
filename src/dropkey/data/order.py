"""The order in which training sees the images: a pure function of seed and epoch."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from dropkey.data.seeds import seed_of

__all__ = ["EpochOrder", "Place"]

Place = tuple[int, int]  # (epoch, index of the image)


class EpochOrder(Sampler[Place]):
    """Draws every image once an epoch, in a new order each time, and can start anywhere.

    It yields (epoch, index), so that the augmentation of an image can depend on both, in any worker.

    Args:
        num_images: number of training images.
        seed: seed of the run.
        rank: this process, of ``world_size`` processes that share the images.
        world_size: number of processes; at most ``world_size - 1`` images an epoch are left out to share evenly.
    """

    def __init__(self, num_images: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.num_images = num_images
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self._skipped: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return self.num_images // self.world_size

    def set_epoch(self, epoch: int) -> None:
        """Draw the order of ``epoch`` from the next iteration on; Lightning calls this."""
        self.epoch = epoch

    def start_at(self, epoch: int, num_images: int) -> None:
        """Begin with ``epoch``, and leave out its first ``num_images`` images of this process."""
        self.epoch = epoch
        self._skipped = (epoch, num_images)

    def __iter__(self) -> Iterator[Place]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, "order", self.epoch))
        order = torch.randperm(self.num_images, generator=generator)
        mine = order[self.rank : len(self) * self.world_size : self.world_size].tolist()
        first = self._skipped[1] if self._skipped[0] == self.epoch else 0
        return iter([(self.epoch, index) for index in mine[first:]])
