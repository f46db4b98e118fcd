"""Sources of bodies by name."""

from collections.abc import Callable
from pathlib import Path

from dropkey.data.body_source import BodySource
from dropkey.errors import ArgumentError, did_you_mean

__all__ = ["SOURCES", "check_source_name", "load_source"]


def _bodies(data_dir: str, count: int, img_size: int) -> BodySource:
    from dropkey.data.bodies.source import bodies

    return bodies(train=count, size=img_size)


def _humbi(data_dir: str, count: int, img_size: int) -> BodySource:
    from dropkey.data.humbi import humbi

    if not data_dir:
        raise ArgumentError("--data humbi needs --data-dir, the folder that holds subject_N/body/")
    return humbi(Path(data_dir))


# From the folder of the data, the number of training bodies and the side of the pictures.
SOURCES: dict[str, Callable[[str, int, int], BodySource]] = {"bodies": _bodies, "humbi": _humbi}


def check_source_name(name: str) -> str:
    """Return ``name``, or raise an ArgumentError with near matches if there is no such source."""
    if name not in SOURCES:
        raise ArgumentError(f"unknown data {name!r}{did_you_mean(name, SOURCES)}; known: {', '.join(SOURCES)}")
    return name


def load_source(name: str, data_dir: str, count: int, img_size: int) -> BodySource:
    """Return the source called ``name``.

    Raises:
        ArgumentError: an unknown name, or no folder where one is needed.
        DataError: the data are missing or broken, or a package is.
    """
    return SOURCES[check_source_name(name)](data_dir, count, img_size)
