"""Fashion-MNIST through torchvision: 70,000 gray images of clothes, 28 x 28 pixels."""

from pathlib import Path

from torchvision.datasets import FashionMNIST

from dropkey.data.array_images import ArrayImages
from dropkey.data.published import published
from dropkey.data.source import ImageSource

__all__ = ["fashion_mnist"]

_FILES = "FashionMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte"


def fashion_mnist(data_dir: Path) -> ImageSource:
    """Return Fashion-MNIST below ``data_dir``, downloaded if it is not there.

    Raises:
        DataError: it is not there and cannot be downloaded.
    """
    train, val = published(FashionMNIST, "Fashion-MNIST", data_dir, _FILES)
    return ImageSource(
        name="fashion_mnist",
        train=ArrayImages(train.data, train.targets),
        val=ArrayImages(val.data, val.targets),
        classes=list(train.classes),
        img_size=28,
        flips=True,
    )
