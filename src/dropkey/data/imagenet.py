"""ImageNet-1k as it is usually unpacked: ``DIR/train/<wnid>/`` and ``DIR/val/<wnid>/``."""

import dataclasses
from pathlib import Path

from dropkey.data.folder import folder
from dropkey.data.source import ImageSource
from dropkey.errors import DataError

__all__ = ["imagenet"]

_NUM_CLASSES = 1000


def imagenet(data_dir: Path) -> ImageSource:
    """Return ImageNet-1k below ``data_dir``. Its license allows no download by a program.

    Raises:
        DataError: it is not there, or has not 1,000 classes; says what to put where.
    """
    if not (data_dir / "train").is_dir() or not (data_dir / "val").is_dir():
        raise DataError(
            f"ImageNet is not in {data_dir}: download ILSVRC2012 from image-net.org and unpack it into "
            f"{data_dir}/train/<wnid>/*.JPEG and {data_dir}/val/<wnid>/*.JPEG"
        )
    source = folder(data_dir)
    if len(source.classes) != _NUM_CLASSES:
        raise DataError(f"{data_dir}/train holds {len(source.classes)} classes, not 1,000: use --data folder for it")
    return dataclasses.replace(source, name="imagenet")
