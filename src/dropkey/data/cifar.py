"""CIFAR-10 and CIFAR-100 through torchvision: 60,000 color images of 32 x 32 pixels."""

from pathlib import Path
from typing import Any

from torchvision.datasets import CIFAR10, CIFAR100

from dropkey.data.array_images import ArrayImages
from dropkey.data.published import published
from dropkey.data.source import ImageSource

__all__ = ["cifar10", "cifar100"]


def cifar10(data_dir: Path) -> ImageSource:
    """Return CIFAR-10 below ``data_dir``, downloaded if it is not there; DataError if it cannot be."""
    return _cifar("cifar10", "CIFAR-10", CIFAR10, data_dir, "cifar-10-batches-py/")


def cifar100(data_dir: Path) -> ImageSource:
    """Return CIFAR-100 below ``data_dir``, downloaded if it is not there; DataError if it cannot be."""
    return _cifar("cifar100", "CIFAR-100", CIFAR100, data_dir, "cifar-100-python/")


def _cifar(name: str, title: str, dataset: Any, data_dir: Path, files: str) -> ImageSource:
    train, val = published(dataset, title, data_dir, files)
    return ImageSource(
        name=name,
        train=ArrayImages(train.data, train.targets),
        val=ArrayImages(val.data, val.targets),
        classes=list(train.classes),
        img_size=32,
        flips=True,
    )
