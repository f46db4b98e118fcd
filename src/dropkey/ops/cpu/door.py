"""The door to native code: nothing is laid out for the kernel that does not fit, whoever calls.

The kernel reads and writes by address. Whatever packs a call (see ``library.py``, ``mixed_operators.py``,
``projected.py``) has each tensor checked here: torch's own class, on the CPU, of the type and shape that the others
imply, with rows that the kernel can walk along.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from dropkey.errors import BackendError

__all__ = ["check_draw", "check_numbers", "check_whole", "place_of_rows"]

_PLAIN = (Tensor, Parameter)
_STRIDED = torch.strided
_NUM_PATTERNS = 5
_FIRST_WINDOW = 3  # place of the first pattern that is drawn on a grid


def place_of_rows(name: str, tensor: Tensor, dtype: torch.dtype, shape: Sequence[int]) -> tuple[int, int, int, int]:
    """Return the address of a (B, H, N, D) tensor and its first three strides.

    Raises:
        BackendError: it has not this type and shape and a last axis without gaps, in memory here.
    """
    kind = type(tensor)
    if (
        (kind is not Tensor and kind is not Parameter)
        or tensor.dtype is not dtype
        or tensor.shape != shape
        or not tensor.is_cpu
        or tensor.layout is not _STRIDED
    ):
        raise _misfit(name, tensor, f"not a plain {_named(dtype)} tensor of shape {tuple(shape)} on the CPU")
    batch, head, row, last = tensor.stride()
    address = tensor.data_ptr()
    if (last != 1 and shape[3] != 1) or not address or tensor.is_neg():
        raise _misfit(name, tensor, "whose last axis has gaps, or which has no numbers in memory")
    return address, batch, head, row


def check_whole(name: str, tensor: Tensor | None, dtype: torch.dtype, shape: Sequence[int]) -> None:
    """Raise a BackendError unless a tensor has this type and shape and is contiguous, in memory here; None may be."""
    if tensor is None:
        return
    if not shape:
        _check_number(name, tensor, dtype)
        return
    if (
        type(tensor) not in _PLAIN
        or not tensor.is_cpu
        or tensor.dtype is not dtype
        or tensor.shape != shape
        or tensor.layout is not torch.strided
        or not tensor.is_contiguous()
        or tensor.is_neg()
        or not tensor.data_ptr()
    ):
        raise _misfit(name, tensor, f"not a dense {_named(dtype)} tensor of shape {tuple(shape)} on the CPU")


def check_numbers(**sizes: int) -> None:
    """Raise a BackendError unless all sizes are 1 or more."""
    for name, size in sizes.items():
        if size < 1:
            raise BackendError(f"the native kernel cannot take {size} {name}: dropkey.attention knows empty calls")


def check_draw(drop_ratio: Tensor, seed: Tensor, seed_threshold: Tensor, numbers: Sequence[int], num_keys: int) -> None:
    """Raise a BackendError unless a draw is one that the kernel knows, for so many keys."""
    if len(numbers) != _NUM_PATTERNS or not -1 <= numbers[0] < _NUM_PATTERNS:
        raise BackendError(f"the native kernel knows no draw {list(numbers)}: give a pattern to dropkey.attention")
    if numbers[0] < 0:
        return
    _check_number("seed", seed, torch.int64)
    _check_number("drop_ratio", drop_ratio, torch.float64)
    if not 0 <= drop_ratio.item() < 1:
        raise BackendError(f"the native kernel cannot take drop_ratio {drop_ratio.item()}: it must be in [0, 1)")
    if numbers[0] < _FIRST_WINDOW:
        return
    _check_number("seed_threshold", seed_threshold, torch.int64)
    _, window, rows, cols, prefix = numbers
    if window < 1 or window % 2 == 0 or rows < 1 or cols < 1 or prefix < 0 or rows * cols + prefix != num_keys:
        raise BackendError(
            f"the native kernel cannot draw windows of {window} on {rows} x {cols} patches and {prefix} more tokens "
            f"for {num_keys} keys: pass the grid_size and num_prefix_tokens of this input"
        )


def _check_number(name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    if type(tensor) not in _PLAIN or not tensor.is_cpu or tensor.dtype is not dtype or tensor.dim():
        raise _misfit(name, tensor, f"not a plain {_named(dtype)} number on the CPU")


def _misfit(name: str, tensor: Any, why: str) -> BackendError:
    if not isinstance(tensor, Tensor):
        return BackendError(f"the native kernel cannot take {name}: it is a {type(tensor).__name__}, {why}")
    kind = "" if type(tensor) in _PLAIN else f"{type(tensor).__name__} of "
    return BackendError(
        f"the native kernel cannot take {name}: it is a {kind}{_named(tensor.dtype)} of shape {tuple(tensor.shape)} on "
        f"{tensor.device}, {why}; call dropkey.attention, which checks and broadcasts"
    )


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
