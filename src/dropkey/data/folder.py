"""Images in folders, one a class: ``DIR/train/<class>/*.jpg`` and ``DIR/val/<class>/*.jpg``."""

from collections.abc import Sequence
from pathlib import Path

from dropkey.data.image_tree import ImageTree
from dropkey.data.picture import readable_name
from dropkey.data.source import ImageSource
from dropkey.errors import DataError

__all__ = ["folder"]

_SHOWN = 5


def folder(data_dir: Path) -> ImageSource:
    """Return the images below ``data_dir/train`` and ``data_dir/val``.

    Raises:
        DataError: a folder is missing or empty, or the two do not hold the same classes.
    """
    name = readable_name(data_dir)
    if not _is_folder(data_dir):
        raise DataError(f"no folder {name}: --data-dir must hold train/<class>/ and val/<class>/ folders of images")
    train, val = ImageTree(data_dir / "train"), ImageTree(data_dir / "val")
    if train.classes != val.classes:
        alone = (_alone("train", train.classes, val.classes), _alone("val", val.classes, train.classes))
        raise DataError(f"{name}/train and {name}/val hold different classes: {'; '.join(filter(None, alone))}")
    if len(train.classes) < 2:
        raise DataError(f"{name}/train holds one class only, {train.classes[0]!r}: there is nothing to tell apart")
    return ImageSource(
        name="folder",
        train=train,
        val=val,
        classes=train.classes,
        img_size=None,
        flips=True,
        left_out=train.left_out + val.left_out,
    )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise DataError(f"cannot look into {readable_name(path)}: {error.strerror}") from None


def _alone(split: str, classes: Sequence[str], others: Sequence[str]) -> str:
    """Say which classes one split has alone."""
    odd = sorted(set(classes) - set(others))
    more = f" and {len(odd) - _SHOWN} more" if len(odd) > _SHOWN else ""
    return f"only {split} has {', '.join(map(repr, odd[:_SHOWN]))}{more}" if odd else ""
