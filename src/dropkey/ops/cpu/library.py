"""The compiled kernel, loaded, and the one row of numbers that it is called with."""

import ctypes
import functools
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dropkey.errors import BackendError
from dropkey.ops.cpu.build import BuildError, SlowCompilerError, build, instruction_sets
from dropkey.ops.cpu.door import check_draw, check_numbers, check_whole, place_of_rows

__all__ = ["DrawNumbers", "Kernel", "kernel", "unavailable"]

# In the order of the kernel's own list.
PATTERNS = ("element", "column", "token", "block", "cross")


class DrawNumbers(NamedTuple):
    """A draw as the kernel's operators take it: tensors that may change from call to call, and plain numbers."""

    drop_ratio: Tensor  # float64 ()
    seed: Tensor  # int64 ()
    seed_threshold: Tensor  # int64 (), read for block and cross only
    numbers: Sequence[int]  # place in PATTERNS, window size, rows and columns of the grid, number of prefix tokens


class Kernel:
    """The entry points of one compiled library."""

    def __init__(self, path: Path, isa: str) -> None:
        self.isa = isa
        self._library = ctypes.CDLL(str(path))
        self.forward = self._entry("dropkey_forward", ctypes.c_char_p)
        self.backward = self._entry("dropkey_backward", ctypes.c_char_p)
        self.mask = self._entry("dropkey_mask", ctypes.c_char_p, ctypes.c_void_p)
        self.mixed_forward = self._entry("dropkey_mixed_forward", ctypes.c_char_p, ctypes.c_char_p)
        self.mixed_backward = self._entry("dropkey_mixed_backward", ctypes.c_char_p, ctypes.c_char_p)
        addresses, numbers = (ctypes.c_void_p, ctypes.c_void_p), (ctypes.c_int64,) * 5
        self.tokens = self._entry("dropkey_tokens", *addresses, *numbers, ctypes.c_void_p)
        self.projected_forward = self._entry("dropkey_projected_forward", ctypes.c_char_p)
        self.projected_backward = self._entry("dropkey_projected_backward", ctypes.c_char_p)
        for name, layout in (("problem", _LAYOUT), ("mixing", MIXING_LAYOUT), ("projection", PROJECTION_LAYOUT)):
            size = getattr(self._library, f"dropkey_{name}_bytes")
            size.restype = ctypes.c_int64
            if size() != layout.size:
                raise BuildError("the compiled kernel does not fit this version of dropkey")
        pool = _torch_pool()
        if pool is not None:
            self._entry("dropkey_use_pool", ctypes.c_void_p)(pool)

    def _entry(self, name: str, *types: type) -> "ctypes._NamedFuncPointer":
        entry: ctypes._NamedFuncPointer = getattr(self._library, name)
        entry.argtypes, entry.restype = types, None
        return entry


_ROWS = ("query", "key", "value", "out", "grad_out", "grad_query", "grad_key", "grad_value")
_TENSORS = 8  # query, key, value, out, their gradients but one
_LAYOUT = struct.Struct("<10q d 8q q 5q 5q" + " 4q" * _TENSORS + " q")
MIXING_LAYOUT = struct.Struct("<q d 10q 8q")  # see mixed_operators.py
PROJECTION_LAYOUT = struct.Struct("<8q d 21q")  # see projected.py


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
    return _LAYOUT.pack(
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


def list_tokens(drop_ratio: Tensor, seed: Tensor, num_heads: int, num_keys: int, rows: Tensor) -> None:
    """Write which tokens the token pattern keeps, int64 (B, kept), as rows of (B * num_keys) tokens.

    Raises:
        BackendError: names what does not fit.
    """
    batch, num_kept = rows.shape
    check_numbers(batch=batch, heads=num_heads, keys=num_keys)
    check_draw(drop_ratio, seed, seed, [PATTERNS.index("token"), 0, 0, 0, 0], num_keys)
    check_whole("rows", rows, torch.int64, (batch, max(1, round((1 - drop_ratio.item()) * num_keys))))
    sizes = batch, num_heads, num_keys, num_kept, torch.get_num_threads()
    kernel().tokens(drop_ratio.data_ptr(), seed.data_ptr(), *sizes, rows.data_ptr())


@functools.cache
def _load() -> Kernel | str:
    """The kernel in the best instruction set that this machine and its compiler know, or why there is none."""
    reason = "no instruction set"
    try:
        for isa in instruction_sets():
            try:
                return Kernel(build(isa), isa)
            except SlowCompilerError:
                raise
            except BuildError as error:  # an older compiler may know fewer instruction sets than the processor
                reason = str(error)
    except (BuildError, OSError, AttributeError) as error:
        reason = str(error)
    return reason


def kernel() -> Kernel:
    """Return the loaded kernel; only where ``unavailable`` returns None."""
    loaded = _load()
    if isinstance(loaded, str):
        raise BuildError(loaded)
    return loaded


def unavailable() -> str | None:
    """Return why there is no kernel on this machine, or None; compiles it if need be."""
    loaded = _load()
    return loaded if isinstance(loaded, str) else None


# What torch.compiler.assume_constant_result would set, at the price of importing the whole compiler (over a second).
unavailable._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _torch_pool() -> int | None:
    """Address of the entry point of the OpenMP library that torch has loaded: its threads are up already, and spin."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    for path in dict.fromkeys(line.split(maxsplit=5)[-1] for line in lines if "libgomp" in line):
        address = ctypes.cast(ctypes.CDLL(path).GOMP_parallel, ctypes.c_void_p).value
        if address is not None:
            return address
    return None
