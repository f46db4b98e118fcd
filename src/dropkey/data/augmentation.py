"""From a PIL image to a tensor: how training changes images, and how evaluation does not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from dropkey.data.order import Place
from dropkey.data.seeds import seed_all
from dropkey.data.source import LabelledImages

__all__ = ["Augmented", "Clean", "ImageFormat", "clean_transform", "train_transform"]

Transform = Callable[[Image.Image], Tensor]
_SMALL = 64  # images up to this side are shifted, larger ones cropped at random scales


@dataclass(frozen=True)
class ImageFormat:
    """What a model takes: squares of ``img_size`` pixels, normalised by ``mean`` and ``std`` a channel."""

    img_size: int
    mean: Sequence[float] = (0.5, 0.5, 0.5)
    std: Sequence[float] = (0.5, 0.5, 0.5)


def train_transform(image_format: ImageFormat, *, shifts: bool, flips: bool) -> Transform:
    """Return the augmentation of training: a random place and a random mirror image, where the source allows them."""
    size = image_format.img_size
    if size <= _SMALL:
        moved = [transforms.RandomCrop(size, padding=max(1, size // 8))] if shifts else []
        place = [_resize(size), transforms.CenterCrop(size), *moved]
    else:
        place = [transforms.RandomResizedCrop(size, scale=(0.3, 1.0), interpolation=InterpolationMode.BICUBIC)]
    mirror = [transforms.RandomHorizontalFlip()] if flips else []
    return transforms.Compose([*place, *mirror, *_to_tensor(image_format)])


def clean_transform(image_format: ImageFormat) -> Transform:
    """Return what evaluation does: the middle of the image at the model's size."""
    size = image_format.img_size
    resized = size if size <= _SMALL else round(size / 0.9)
    return transforms.Compose([_resize(resized), transforms.CenterCrop(size), *_to_tensor(image_format)])


class Augmented(Dataset[tuple[Tensor, int]]):
    """Training images, each augmented by random numbers of its own that depend on (seed, epoch, index) alone."""

    def __init__(self, images: LabelledImages, transform: Transform, seed: int) -> None:
        self.images = images
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: Place) -> tuple[Tensor, int]:
        epoch, index = place
        image, label = self.images[index]
        seed_all(self.seed, "augmentation", epoch, index)
        return self.transform(image), label


class Clean(Dataset[tuple[Tensor, int]]):
    """Images as evaluation sees them.

    Args:
        images: where they come from.
        transform: see ``clean_transform``.
        indices: which ones, in this order.
    """

    def __init__(self, images: LabelledImages, transform: Transform, indices: Sequence[int]) -> None:
        self.images = images
        self.transform = transform
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        image, label = self.images[self.indices[place]]
        return self.transform(image), label


def _resize(size: int) -> Callable[[Image.Image], Image.Image]:
    return transforms.Resize(size, interpolation=InterpolationMode.BICUBIC)


def _to_tensor(image_format: ImageFormat) -> list[torch.nn.Module]:
    return [transforms.ToTensor(), transforms.Normalize(image_format.mean, image_format.std)]
