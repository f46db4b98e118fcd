"""Sources by name."""

import importlib
from collections.abc import Callable
from pathlib import Path

from dropkey.data.source import ImageSource
from dropkey.errors import ArgumentError, did_you_mean

__all__ = ["SOURCES", "check_source_name", "load_source"]

_DEFAULT_DIR = Path("data")  # where downloads go


def _digits(data_dir: Path | None) -> ImageSource:
    from dropkey.data.digits import digits

    if data_dir is not None:
        raise ArgumentError("--data digits reads no --data-dir: name the data as well (--data folder), or leave it out")
    return digits()


def _downloaded(module: str, name: str) -> Callable[[Path | None], ImageSource]:
    def load(data_dir: Path | None) -> ImageSource:
        source = getattr(importlib.import_module(f"dropkey.data.{module}"), name)(data_dir or _DEFAULT_DIR)
        assert isinstance(source, ImageSource)
        return source

    return load


def _given(module: str, name: str) -> Callable[[Path | None], ImageSource]:
    def load(data_dir: Path | None) -> ImageSource:
        if data_dir is None:
            raise ArgumentError(f"--data {name} needs --data-dir, a folder with train/<class>/ and val/<class>/")
        return _downloaded(module, name)(data_dir)

    return load


SOURCES: dict[str, Callable[[Path | None], ImageSource]] = {
    "digits": _digits,
    "fashion_mnist": _downloaded("fashion_mnist", "fashion_mnist"),
    "cifar10": _downloaded("cifar", "cifar10"),
    "cifar100": _downloaded("cifar", "cifar100"),
    "imagenet": _given("imagenet", "imagenet"),
    "folder": _given("folder", "folder"),
}


def check_source_name(name: str) -> str:
    """Return ``name``, or raise an ArgumentError with near matches if there is no such source."""
    if name not in SOURCES:
        raise ArgumentError(f"unknown data {name!r}{did_you_mean(name, SOURCES)}; known: {', '.join(SOURCES)}")
    return name


def load_source(name: str, data_dir: Path | None = None) -> ImageSource:
    """Return the source called ``name``.

    Raises:
        ArgumentError: an unknown name, no ``data_dir`` where one is needed, or one where none is read.
        DataError: the images are missing or broken.
    """
    return SOURCES[check_source_name(name)](data_dir)
