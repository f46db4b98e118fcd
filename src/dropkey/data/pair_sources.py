"""Sources of images with pairs, by name."""

import importlib
from collections.abc import Callable
from pathlib import Path

from dropkey.data.pair_records import Broken
from dropkey.data.paired_images import PairSource
from dropkey.errors import ArgumentError, did_you_mean

__all__ = ["PAIR_SOURCES", "check_pair_source", "load_pair_source"]


def _drawn(data_dir: Path | None, broken: Broken) -> PairSource:
    from dropkey.data.digit_pairs import digit_pairs

    if data_dir is not None:
        raise ArgumentError(
            "--data digit_pairs reads no --data-dir: name the data too (--data hico_det), or leave it out"
        )
    return digit_pairs()


def _given(name: str, annotations: str) -> Callable[[Path | None, Broken], PairSource]:
    def load(data_dir: Path | None, broken: Broken) -> PairSource:
        if data_dir is None:
            raise ArgumentError(f"--data {name} needs --data-dir, a folder with {annotations} and the images")
        source = getattr(importlib.import_module(f"dropkey.data.{name}"), name)(data_dir, broken)
        assert isinstance(source, PairSource)
        return source

    return load


PAIR_SOURCES: dict[str, Callable[[Path | None, Broken], PairSource]] = {
    "digit_pairs": _drawn,
    "hico_det": _given("hico_det", "annotations/trainval_hico.json or instances_train2015.json"),
    "vcoco": _given("vcoco", "annotations/trainval_vcoco.json or instances_vcoco_trainval.json"),
}


def check_pair_source(name: str) -> str:
    """Return ``name``, or raise an ArgumentError with near matches if there is no such source."""
    if name not in PAIR_SOURCES:
        raise ArgumentError(
            f"unknown data {name!r}{did_you_mean(name, PAIR_SOURCES)}; known: {', '.join(PAIR_SOURCES)}"
        )
    return name


def load_pair_source(name: str, data_dir: Path | None = None, broken: Broken = "refuse") -> PairSource:
    """Return the source called ``name``.

    Args:
        name: one of ``PAIR_SOURCES``.
        data_dir: where it lies.
        broken: "refuse" what cannot be used, or "skip" it and say so in the notes.

    Raises:
        ArgumentError: an unknown name, no ``data_dir`` where one is needed, or one where none is read.
        DataError: images or annotations are missing or broken.
    """
    return PAIR_SOURCES[check_pair_source(name)](data_dir, broken)
