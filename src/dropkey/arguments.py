"""What arguments must be: the checks that public functions share."""

import contextlib
import operator
from typing import Any

import torch
from torch import nn

from dropkey.errors import ArgumentError

__all__ = ["check_count", "check_flag", "check_grid_size", "check_model", "check_where", "short"]

_COUNTS = (int, torch.SymInt)  # a compiled graph has symbols for them


def check_flag(name: str, value: Any) -> bool:
    """Return ``value``, or raise an ArgumentError if it is not True or False: the text "no" would count as True."""
    if isinstance(value, bool | torch.SymBool):
        return value  # type: ignore[return-value]
    raise ArgumentError(f"{name} must be True or False, got {short(value)}")


def check_count(name: str, value: Any, least: int = 0) -> int:
    """Return a whole number (NumPy's too) of at least ``least``, or raise an ArgumentError."""
    count: int | torch.SymInt = -1
    if type(value) in _COUNTS:
        count = value
    elif not isinstance(value, bool):
        with contextlib.suppress(TypeError):
            count = operator.index(value)
    if count < least:
        raise ArgumentError(f"{name} must be a whole number, {least} or more, got {short(value)}")
    return count  # type: ignore[return-value]


def check_grid_size(grid_size: Any) -> tuple[int, int] | None:
    """Return (rows, cols) of a patch grid, or None, or raise an ArgumentError."""
    if grid_size is None:
        return None
    try:
        rows, cols = grid_size
    except (TypeError, ValueError):
        raise ArgumentError(f"grid_size must be (rows, cols), got {short(grid_size)}") from None
    return check_count("rows of grid_size", rows, 1), check_count("columns of grid_size", cols, 1)


def check_model(model: Any) -> nn.Module:
    """Return ``model``, or raise an ArgumentError if it is no module."""
    if isinstance(model, nn.Module):
        return model
    raise ArgumentError(f"the model must be a torch.nn.Module, got {short(model)}")


def check_where(where: Any) -> None:
    """Raise an ArgumentError if ``where`` cannot be asked about a module."""
    if where is not None and not callable(where):
        raise ArgumentError(f"where must be a function of each attention module found, got {short(where)}")


def short(value: Any) -> str:
    """A value in one short line: a module or a tensor has many."""
    text = repr(value)
    return text if len(text) < 80 and "\n" not in text else f"a {type(value).__name__}"
