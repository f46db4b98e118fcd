"""Sources by name."""

from collections.abc import Callable
from pathlib import Path

from dropkey.data.source import ImageSource
from dropkey.errors import ArgumentError, did_you_mean

__all__ = ["load_source"]


def _digits(data_dir: Path | None) -> ImageSource:
    from dropkey.data.digits import digits

    return digits()


def _folder(data_dir: Path | None) -> ImageSource:
    from dropkey.data.folder import folder

    if data_dir is None:
        raise ArgumentError("--data folder needs --data-dir, a folder with train/<class>/ and val/<class>/")
    return folder(data_dir)


SOURCES: dict[str, Callable[[Path | None], ImageSource]] = {"digits": _digits, "folder": _folder}


def load_source(name: str, data_dir: Path | None = None) -> ImageSource:
    """Return the source called ``name``.

    Raises:
        ArgumentError: an unknown name, or no ``data_dir`` where one is needed.
        DataError: the images are missing or broken.
    """
    if name not in SOURCES:
        raise ArgumentError(f"unknown data {name!r}{did_you_mean(name, SOURCES)}; known: {', '.join(SOURCES)}")
    return SOURCES[name](data_dir)
