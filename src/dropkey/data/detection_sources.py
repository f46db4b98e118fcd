"""Sources of images with boxes, by name."""

import importlib
from collections.abc import Callable
from pathlib import Path

from dropkey.data.boxed_images import DetectionSource
from dropkey.errors import ArgumentError, did_you_mean

__all__ = ["DETECTION_SOURCES", "check_detection_source", "load_detection_source"]


Load = Callable[[Path | None, bool], DetectionSource]  # from --data-dir and --mend-boxes


def _drawn(data_dir: Path | None, mend: bool) -> DetectionSource:
    from dropkey.data.digit_scenes import digit_scenes

    if data_dir is not None:
        raise ArgumentError("--data digit_scenes reads no --data-dir: name the data too (--data coco), or leave it out")
    return digit_scenes()


def _given(name: str, layout: str) -> Load:
    def load(data_dir: Path | None, mend: bool) -> DetectionSource:
        if data_dir is None:
            raise ArgumentError(f"--data {name} needs --data-dir, a folder with {layout}")
        source = getattr(importlib.import_module(f"dropkey.data.{name}"), name)(data_dir, mend)
        assert isinstance(source, DetectionSource)
        return source

    return load


DETECTION_SOURCES: dict[str, Load] = {
    "digit_scenes": _drawn,
    "coco": _given("coco", "annotations/instances_{train,val}*.json"),
    "yolo": _given("yolo", "data.yaml, images/ and labels/"),
}


def check_detection_source(name: str) -> str:
    """Return ``name``, or raise an ArgumentError with near matches if there is no such source."""
    if name not in DETECTION_SOURCES:
        hint = did_you_mean(name, DETECTION_SOURCES)
        raise ArgumentError(f"unknown data {name!r}{hint}; known: {', '.join(DETECTION_SOURCES)}")
    return name


def load_detection_source(name: str, data_dir: Path | None = None, mend: bool = False) -> DetectionSource:
    """Return the source called ``name``.

    Args:
        name: one of ``DETECTION_SOURCES``.
        data_dir: its folder, for those that are read.
        mend: mend boxes that cannot be used instead of refusing them: see ``BoxRules``.

    Raises:
        ArgumentError: an unknown name, no ``data_dir`` where one is needed, or one where none is read.
        DataError: the images or their boxes are missing or broken.
    """
    return DETECTION_SOURCES[check_detection_source(name)](data_dir, mend)
