"""From a PIL image to a tensor: how training changes images, and how evaluation does not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from timm.data.config import resolve_model_data_config
from timm.data.random_erasing import RandomErasing
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from dropkey.data.order import Place
from dropkey.data.seeds import seed_cpu
from dropkey.data.source import LabeledImages

__all__ = ["Augmentation", "Augmented", "Clean", "ImageFormat", "clean_transform", "placing_of", "train_transform"]

Transform = Callable[[Image.Image], Tensor]
_MAX_MAGNITUDE = 9.99  # at 10, timm asks Pillow to keep 0 bits of an image, which it refuses
_SMALL = 64  # images up to this side are shifted, larger ones cropped at random scales


@dataclass(frozen=True)
class ImageFormat:
    """What a model takes: squares of ``img_size`` pixels, normalized by each channel's ``mean`` and ``std``."""

    img_size: int
    mean: Sequence[float] = (0.5, 0.5, 0.5)
    std: Sequence[float] = (0.5, 0.5, 0.5)

    @classmethod
    def of(cls, network: nn.Module, img_size: int = 0) -> Self:
        """Return what a timm model takes: ``img_size``, or its own size where that is 0, and its normalization."""
        config = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
        return cls(img_size or config["input_size"][-1], tuple(config["mean"]), tuple(config["std"]))


@dataclass(frozen=True)
class Augmentation:
    """How training changes an image.

    Args:
        shifts: move small images by up to an eighth of their side; larger ones are cropped at random scales instead.
        crops: whether images are moved or cropped at random at all.
        flips: mirror every other image.
        rand_augment: magnitude of timm's RandAugment, up to 10; 0 for none.
        color_jitter: strength of changes of brightness, contrast and saturation.
        random_erasing: share of images with a rectangle of noise.
    """

    shifts: bool = True
    crops: bool = True
    flips: bool = True
    rand_augment: float = 0.0
    color_jitter: float = 0.0
    random_erasing: float = 0.0

    def __str__(self) -> str:
        """What training does to images, in words."""
        steps = {
            "mirroring": self.flips,
            f"RandAugment of magnitude {self.rand_augment:g}": self.rand_augment,
            f"color jitter of {self.color_jitter:g}": self.color_jitter,
            f"erasing in {self.random_erasing:.0%} of the images": self.random_erasing,
        }
        return ", ".join(words for words, acts in steps.items() if acts) or "no mirroring"


def placing_of(img_size: int, augmentation: Augmentation) -> str:
    """Return in words how training cuts images to a size."""
    if not augmentation.crops:
        return "no random crops"
    if img_size > _SMALL:
        return "random crops of 30% to 100% of the area"
    shift = max(1, img_size // 8)
    return f"shifts by up to {shift} pixel{'s' if shift > 1 else ''}" if augmentation.shifts else "no shifts"


def train_transform(image_format: ImageFormat, augmentation: Augmentation) -> Transform:
    """Return the steps from an image of a source to what training sees."""
    steps = [*_placing(image_format.img_size, augmentation)]
    if augmentation.flips:
        steps.append(transforms.RandomHorizontalFlip())
    if augmentation.rand_augment:
        gray = tuple(round(255 * value) for value in image_format.mean)
        settings = {"img_mean": gray, "translate_pct": 0.1, "magnitude_max": _MAX_MAGNITUDE}
        transform: Any = rand_augment_transform("rand-m0-mstd0.5-inc1", settings)
        for step in transform.ops:
            step.magnitude = augmentation.rand_augment  # which the text could give as a whole number only
        steps.append(transform)
    if augmentation.color_jitter:
        steps.append(transforms.ColorJitter(*[augmentation.color_jitter] * 3))
    steps.append(_Normalized(image_format))
    if augmentation.random_erasing:
        erasing: Any = RandomErasing
        steps.append(erasing(augmentation.random_erasing, mode="pixel", device="cpu"))
    return _composed(steps)


def _placing(size: int, augmentation: Augmentation) -> list[Any]:
    if not augmentation.crops:
        return [_Fitted(size)]
    if size > _SMALL:
        return [transforms.RandomResizedCrop(size, scale=(0.3, 1.0), interpolation=InterpolationMode.BICUBIC)]
    moved = [transforms.RandomCrop(size, padding=max(1, size // 8))] if augmentation.shifts else []
    return [_Fitted(size), *moved]


def clean_transform(image_format: ImageFormat) -> Transform:
    """Return what evaluation does: the middle of the image at the model's size."""
    return _composed([_Fitted(image_format.img_size), _Normalized(image_format)])


def _composed(steps: list[Any]) -> Transform:
    composed: Transform = transforms.Compose(steps)
    return composed


class _Fitted:
    """The middle of an image at a size; of large images a tenth of each side is left out, as is usual."""

    def __init__(self, size: int) -> None:
        self.size = size
        resized = size if size <= _SMALL else round(size / 0.9)
        resize = transforms.Resize(resized, interpolation=InterpolationMode.BICUBIC)
        self.steps = [resize, transforms.CenterCrop(size)]

    def __call__(self, image: Image.Image) -> Image.Image:
        if image.size == (self.size, self.size) and self.size <= _SMALL:
            return image
        image = _without_far_ends(image)
        for step in self.steps:
            image = step(image)
        return image


def _without_far_ends(image: Image.Image) -> Image.Image:
    """Return the middle of an image that is longer than 8 times its width: resized as a whole it could fill memory."""
    width, height = image.size
    reach = 8 * min(width, height)
    if max(width, height) <= reach:
        return image
    left, top = max(0, (width - reach) // 2), max(0, (height - reach) // 2)
    return image.crop((left, top, left + min(width, reach), top + min(height, reach)))


class _Normalized:
    """RGB bytes as a float32 tensor (3, rows, cols), normalized by channel."""

    def __init__(self, image_format: ImageFormat) -> None:
        mean, std = (np.asarray(values, dtype=np.float32) for values in (image_format.mean, image_format.std))
        self.factor, self.shift = 1 / (255 * std), -mean / std

    def __call__(self, image: Image.Image) -> Tensor:
        pixels = np.asarray(image, dtype=np.float32) * self.factor + self.shift
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


class Augmented(Dataset[tuple[Tensor, int]]):
    """Training images, each augmented by random numbers of its own that depend on (seed, epoch, index) alone."""

    def __init__(self, images: LabeledImages, transform: Transform, seed: int) -> None:
        self.images = images
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: Place) -> tuple[Tensor, int]:
        epoch, index = place
        image, label = self.images[index]
        seed_cpu(self.seed, "augmentation", epoch, index)
        return self.transform(image), label


class Clean(Dataset[tuple[Tensor, int]]):
    """Images as evaluation sees them.

    Args:
        images: where they come from.
        transform: see ``clean_transform``.
        indices: which ones, in this order.
    """

    def __init__(self, images: LabeledImages, transform: Transform, indices: Sequence[int]) -> None:
        self.images = images
        self.transform = transform
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        image, label = self.images[self.indices[place]]
        return self.transform(image), label
