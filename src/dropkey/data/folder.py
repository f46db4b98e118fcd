"""Images in folders, one a class: ``DIR/train/<class>/*.jpg`` and ``DIR/val/<class>/*.jpg``."""

import os
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from dropkey.data.source import ImageSource
from dropkey.errors import DataError

__all__ = ["IMAGE_SUFFIXES", "ImageTree", "folder", "read_image"]

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif"}


class ImageTree:
    """The images below one folder, in the order of their paths.

    Args:
        root: a folder with one folder a class.

    Raises:
        DataError: no such folder, no class in it, or a class without images.
    """

    def __init__(self, root: Path) -> None:
        self.classes = _class_names(root)
        self.files: list[tuple[Path, int]] = []
        for label, name in enumerate(self.classes):
            found = _image_files(root / name)
            if not found:
                raise DataError(f"class folder {root / name} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
            self.files += [(path, label) for path in found]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        path, label = self.files[index]
        return read_image(path), label


def read_image(path: Path) -> Image.Image:
    """Return an image file as RGB, or raise a DataError that names the file."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except UnidentifiedImageError:
        raise DataError(f"{path} is not an image that can be read: mend or delete it") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read the image {path} ({error}): mend or delete it") from None


def folder(data_dir: Path) -> ImageSource:
    """Return the images below ``data_dir/train`` and ``data_dir/val``.

    Raises:
        DataError: a folder is missing or empty, or the two do not hold the same classes.
    """
    if not data_dir.is_dir():
        raise DataError(f"no folder {data_dir}: --data-dir must hold train/<class>/ and val/<class>/ folders of images")
    train, val = ImageTree(data_dir / "train"), ImageTree(data_dir / "val")
    if train.classes != val.classes:
        odd = sorted(set(train.classes) ^ set(val.classes))
        raise DataError(f"{data_dir}/train and {data_dir}/val hold different classes: only one has {', '.join(odd)}")
    if len(train.classes) < 2:
        raise DataError(f"{data_dir}/train holds one class only, {train.classes[0]}: there is nothing to tell apart")
    return ImageSource("folder", train, val, train.classes, None, flips=True)


def _class_names(root: Path) -> list[str]:
    try:
        names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    except FileNotFoundError:
        raise DataError(f"no folder {root}: images are expected in {root}/<class>/") from None
    except OSError as error:
        raise DataError(f"cannot read the folder {root}: {error.strerror}") from None
    if not names:
        raise DataError(f"{root} holds no class folders: images are expected in {root}/<class>/")
    return names


def _image_files(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    except OSError as error:
        raise DataError(f"cannot read the folder {root}: {error.strerror}") from None
