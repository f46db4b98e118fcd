"""JSON files of annotations, with errors that name the file and the place."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dropkey.errors import DataError, first_line

__all__ = ["box_of", "read_json", "value_of", "whole_of"]


def read_json(path: Path, what: str) -> Any:
    """Return what a JSON file holds, or raise a DataError; ``what`` says what the file is."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"no file {path}: it holds {what}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {first_line(error)}") from None


def value_of(entry: Any, key: str, kind: type, where: str) -> Any:
    """Return ``entry[key]``, or raise a DataError if there is none, or one of another kind."""
    if not isinstance(entry, Mapping) or key not in entry:
        raise DataError(f"{where} has no {key!r}")
    if not isinstance(entry[key], kind):
        raise DataError(f"{where}: {key!r} must be a {kind.__name__}, got {_short(entry[key])}")
    return entry[key]


def whole_of(value: Any, what: str) -> int:
    """Return a whole number, also from a text, or raise a DataError."""
    try:
        if isinstance(value, bool) or int(value) != float(value):
            raise ValueError
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{what} must be a whole number, got {_short(value)}") from None


def box_of(value: Any, where: str) -> list[float]:
    """Return a box of four finite numbers, or raise a DataError."""
    try:
        box = [float(side) for side in value]
    except (TypeError, ValueError):
        box = []
    if len(box) != 4 or not all(map(math.isfinite, box)):
        raise DataError(f"{where} has the box {_short(value)}: four numbers are expected (left, top, right, bottom)")
    return box


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else text[:37] + "..."
