"""The door to native code: nothing is laid out for the kernel that does not fit, whoever calls.

The kernel is called with one row of numbers, and reads and writes by address. Whatever is packed for it, here or in
``mixed_operators.py`` and ``projected.py``, is checked here tensor by tensor: torch's own class, on the CPU, of the
type and shape that the others imply, with rows that the kernel can walk along.
"""

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from dropkey.errors import BackendError

__all__ = ["DrawNumbers", "check_draw", "check_numbers", "check_whole", "pack", "place_of_rows"]

_PLAIN = (Tensor, Parameter)
_STRIDED = torch.strided
_FIRST_WINDOW = 3  # place in PATTERNS of the first that is drawn on a grid

_ROWS = ("query", "key", "value", "out", "grad_out", "grad_query", "grad_key", "grad_value")
_TENSORS = 8  # query, key, value, out, their gradients but one
PROBLEM_LAYOUT = struct.Struct("<10q d 8q q 5q 5q" + " 4q" * _TENSORS + " q")
MIXING_LAYOUT = struct.Struct("<q d 10q 8q")  # see mixed_operators.py
PROJECTION_LAYOUT = struct.Struct("<8q d 21q")  # see projected.py

# In the order of the kernel's own list.
PATTERNS = ("element", "column", "token", "block", "cross")
_NUM_NUMBERS = 5  # of DrawNumbers


class DrawNumbers(NamedTuple):
    """A draw as the kernel's operators take it: tensors that may change from call to call, and plain numbers."""

    drop_ratio: Tensor  # float64 ()
    seed: Tensor  # int64 ()
    seed_threshold: Tensor  # int64 (), read for block and cross only
    numbers: Sequence[int]  # place in PATTERNS, window size, rows and columns of the grid, number of prefix tokens


def pack(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    draw: DrawNumbers,
    *,
    scale: float = 1.0,
    is_causal: bool = False,
    bias: Tensor | None = None,
    grad_bias: Tensor | None = None,
    outputs: tuple[Tensor, ...] = (),
    sums: Tensor | None = None,
) -> bytes:
    """Lay a call out as the kernel reads it.

    Args:
        query: (B, H, Nq, D); like all tensors here with a contiguous last dimension.
        key: (B, Hkv, Nk, D).
        value: (B, Hkv, Nk, Dv).
        draw: what is drawn.
        scale: factor of the logits.
        is_causal: whether later keys are forbidden.
        bias: bool or float32, already expanded to (B, H, Nq, Nk).
        grad_bias: float32, likewise expanded: broadcast dimensions are summed into.
        outputs: out, and for the backward pass the gradients of out, query, key and value.
        sums: float32 (2, B, H, Nq), contiguous: highest logit, and one over the sum of the weights, of each query.

    Raises:
        BackendError: names what does not fit.
    """
    sizes = _sizes(query, key, value)
    batch, heads, kv_heads, queries, keys, dim, value_dim = sizes
    dtype, of_query, of_out = query.dtype, (batch, heads, queries, dim), (batch, heads, queries, value_dim)
    of_key, of_value = (batch, kv_heads, keys, dim), (batch, kv_heads, keys, value_dim)
    shapes = (of_query, of_key, of_value, of_out, of_out, of_query, of_key, of_value)
    tensors: list[int] = []
    for name, tensor, shape in zip(_ROWS, (query, key, value, *outputs), shapes, strict=False):
        tensors += place_of_rows(name, tensor, dtype, shape)
    check_whole("sums", sums, torch.float32, (2, batch, heads, queries))
    check_draw(*draw, keys)
    half = int(dtype is torch.bfloat16)
    kind = 0 if bias is None else 1 if bias.dtype is torch.bool else 2
    return PROBLEM_LAYOUT.pack(
        *sizes,
        half,
        is_causal,
        torch.get_num_threads(),
        scale,
        draw.numbers[0],
        draw.drop_ratio.data_ptr(),
        draw.seed.data_ptr(),
        draw.seed_threshold.data_ptr(),
        *draw.numbers[1:],
        kind,
        *_place_of_bias("bias", bias, (batch, heads, queries, keys)),
        *_place_of_bias("grad_bias", grad_bias, (batch, heads, queries, keys)),
        *tensors,
        *(0,) * (4 * _TENSORS - len(tensors)),
        0 if sums is None else sums.data_ptr(),
    )


def _sizes(query: Tensor, key: Tensor, value: Tensor) -> tuple[int, ...]:
    """B, H, Hkv, Nq, Nk, D, Dv."""
    if query.dtype not in (torch.float32, torch.bfloat16) or not query.dim() == key.dim() == value.dim() == 4:
        shapes = f"{tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)} in {query.dtype}"
        raise BackendError(
            f"the native kernel takes (batch, heads, tokens, head_dim) in float32 or bfloat16, got {shapes}: "
            "call dropkey.attention"
        )
    batch, heads, queries, dim = query.shape
    _, kv_heads, keys, value_dim = value.shape
    if 0 in (batch, heads, kv_heads, queries, keys, dim, value_dim):
        check_numbers(batch=batch, heads=heads, kv_heads=kv_heads, queries=queries, keys=keys, channels=0)
    if heads % kv_heads:
        raise BackendError(f"the native kernel cannot share {kv_heads} key heads among {heads} query heads")
    return batch, heads, kv_heads, queries, keys, dim, value_dim


def _place_of_bias(name: str, bias: Tensor | None, shape: tuple[int, ...]) -> tuple[int, ...]:
    if bias is None:
        return (0,) * 5
    if bias.shape != shape:
        raise BackendError(f"the native kernel cannot take a {name} of shape {tuple(bias.shape)} for weights {shape}")
    kind = torch.bool if bias.dtype is torch.bool and name == "bias" else torch.float32
    return *place_of_rows(name, bias[..., :1], kind, (*shape[:3], 1)), bias.stride(3)  # keys may lie apart


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
    if len(numbers) != _NUM_NUMBERS or not -1 <= numbers[0] < len(PATTERNS):
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
