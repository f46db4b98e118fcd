"""From tensors to kernels: grids, strides, thresholds and tiles."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from dropkey.ops.triton.backward import key_value_kernel, query_kernel
from dropkey.ops.triton.forward import forward_kernel
from dropkey.ops.triton.tiles import INTERPRETED, IS_INTERPRETING, Gpu, Tile, default_tile

__all__ = ["Inputs", "Launch", "forced_tile", "launch_backward", "launch_forward", "padded"]

LOG2_E = 1.4426950408889634
_PATTERNS = {"element": 0, "column": 1, "token": 2, "block": 3, "cross": 3, "bits": 3, "none": 4}
_FAR = 2**31 // 128  # elements
_SMALLEST_SCALE = 2.0**-20  # dropped logits are far below all others before they are scaled and after
_KERNELS = {"forward": forward_kernel, "query": query_kernel, "key_value": key_value_kernel}
_forced: dict[str, Tile] = {}


class Inputs(NamedTuple):
    """What one call is computed from, as the operators receive it."""

    query: Tensor
    key: Tensor
    value: Tensor
    attn_bias: Tensor | None
    kept: Tensor | None
    drop_ratio: Tensor
    seed: Tensor
    pattern: str
    is_causal: bool
    scale: float


class Launch:
    """What every kernel of one call is launched with."""

    def __init__(self, inputs: Inputs) -> None:
        query, key, value = (near(tensor) for tensor in inputs[:3])
        self.query, self.key, self.value = query, key, value
        self.batch, self.num_heads, self.num_queries, dim = query.shape
        self.num_keys, value_dim = value.shape[-2:]
        self.scale = inputs.scale
        self.bias, self.bias_strides = _bias_of(inputs.attn_bias, (*query.shape[:3], self.num_keys))
        self.kept = None if inputs.kept is None else inputs.kept.view(torch.uint8)
        self.base_scale = self.scale if query.dtype == torch.float32 else self.scale * LOG2_E  # see ``exponential``
        self.seed, self.threshold = inputs.seed, threshold_of(inputs.drop_ratio)
        self.pattern = _PATTERNS[inputs.pattern]
        self.options: dict[str, Any] = {
            "GROUP": self.num_heads // key.shape[1] if key.shape[1] else 1,
            "BIAS": _bias_code(inputs.attn_bias),
            "BIAS_PER_QUERY": self.bias_strides[2] != 0,
            "CAUSAL": inputs.is_causal,
            "UPCAST": IS_INTERPRETING and query.dtype == torch.bfloat16,
            "DIM": dim,
            "BLOCK_DIM": padded(max(dim, value_dim)),
            "VALUE_DIM": value_dim,
        }

    @property
    def is_empty(self) -> bool:
        """Whether there is no pair of a query and a key."""
        return 0 in (self.batch, self.num_heads, self.num_queries, self.num_keys)

    def tile(self, name: str) -> dict[str, int]:
        """Return the tile of a kernel, as its keyword arguments."""
        return _tile(name, self.options["BLOCK_DIM"], self.query)

    def run(self, name: str, num_heads: int, length: str, *args: Any, **options: Any) -> None:
        """Launch a kernel over tiles of ``length`` ("BLOCK_M" or "BLOCK_N") of ``num_heads`` heads a batch."""
        tokens = self.num_queries if length == "BLOCK_M" else self.num_keys
        tile = self.tile(name)
        grid = (self.batch * num_heads * triton.cdiv(tokens, tile[length]),)
        with torch.cuda.device_of(self.query):  # type: ignore[no-untyped-call]
            _KERNELS[name][grid](*args, **self.options, **options, **tile)


def launch_forward(launch: Launch, out: Tensor, row_stats: Tensor, bits: Tensor | None = None) -> None:
    """Fill ``out`` and ``row_stats``, and ``bits`` (B, H, Nq, ceil(Nk / 8)) with the mask that is drawn, if given."""
    if launch.is_empty:
        out.zero_()
        return
    c, written = launch, out if is_near(out) else out.new_empty(out.shape)
    c.run(
        "forward", c.num_heads, "BLOCK_M",
        c.query, c.key, c.value, c.bias, c.kept if bits is None else bits, c.seed, written, row_stats,
        c.threshold, c.base_scale,
        strides(c.query), strides(c.key), strides(c.value), c.bias_strides, strides(written),
        c.num_heads, c.num_queries, c.num_keys, PATTERN=c.pattern, STORE=bits is not None,
        LATE=c.bias is None and _SMALLEST_SCALE < c.base_scale < 1 / _SMALLEST_SCALE,
    )  # fmt: skip

    if written is not out:
        out.copy_(written)


def launch_backward(
    launch: Launch,
    out: Tensor,
    row_stats: Tensor,
    grad_out: Tensor,
    grad_query: Tensor,
    grad_key: Tensor,
    grad_value: Tensor,
) -> None:
    """Fill the three gradients."""
    if launch.is_empty:
        for grad in (grad_query, grad_key, grad_value):
            grad.zero_()
        return
    c, out, grad_out = launch, near(out), near(grad_out)
    delta = torch.empty_like(row_stats[0])
    c.run(
        "query", c.num_heads, "BLOCK_M",
        c.query, c.key, c.value, c.bias, c.kept, c.seed, out, grad_out, row_stats, delta, grad_query,
        c.threshold, c.base_scale, c.scale,
        strides(c.query), strides(c.key), strides(c.value), c.bias_strides, strides(out), strides(grad_out),
        strides(grad_query), c.num_heads, c.num_queries, c.num_keys, delta.numel(), PATTERN=c.pattern,
    )  # fmt: skip
    c.run(
        "key_value", c.key.shape[1], "BLOCK_N",
        c.query, c.key, c.value, c.bias, c.kept, c.seed, grad_out, row_stats, delta, grad_key, grad_value,
        c.threshold, c.base_scale, c.scale,
        strides(c.query), strides(c.key), strides(c.value), c.bias_strides, strides(grad_out), strides(grad_key),
        strides(grad_value), c.num_heads, c.num_queries, c.num_keys, delta.numel(), PATTERN=c.pattern,
    )  # fmt: skip


@contextmanager
def forced_tile(name: str, tile: Tile) -> Iterator[None]:
    """Let a kernel use one tile, whatever the call: for measurements."""
    _forced[name] = tile
    try:
        yield
    finally:
        del _forced[name]


def strides(tensor: Tensor) -> tuple[int, ...]:
    """Return the strides of batch, head and token; the last one is 1. What a launch is told costs time."""
    return tensor.stride()[:3]


def near(tensor: Tensor) -> Tensor:
    """Return the tensor, copied only where a row is not laid out side by side or lies too far from the next.

    Inside of a tile, of at most 128 rows, the kernels count in 32 bits.
    """
    return tensor if is_near(tensor) or tensor.numel() == 0 else tensor.contiguous()


def is_near(tensor: Tensor) -> bool:
    """Say whether rows are laid out side by side, and close enough to the next."""
    return tensor.stride(-1) == 1 and tensor.stride(-2) < _FAR


def padded(dim: int) -> int:
    """Return the power of two that head dimensions are padded to; the matrix units want 16 at least.

    Those of query and value are padded to the same: with 64 and 16, Triton 3.6 multiplies wrongly on Hopper.
    """
    return max(16, 1 << (dim - 1).bit_length())


def threshold_of(drop_ratio: Tensor) -> int | Tensor:
    """Return what 16 random bits are compared with, or the ratio itself, if it is on a GPU: the kernel reads it there.

    On the CPU, where it is as a rule, reading it waits for nothing.
    """
    return drop_ratio if drop_ratio.is_cuda else int(torch.round(drop_ratio * 65536).item())


def _bias_code(attn_bias: Tensor | None) -> int:
    return 0 if attn_bias is None else 2 if attn_bias.dtype == torch.bool else 1


def _bias_of(attn_bias: Tensor | None, shape: tuple[int, ...]) -> tuple[Tensor | None, tuple[int, ...]]:
    if attn_bias is None:
        return None, (0, 0, 0, 0)
    expanded = attn_bias.detach().expand(shape)
    return (expanded.view(torch.uint8) if expanded.dtype == torch.bool else expanded), expanded.stride()


def _tile(name: str, block_dim: int, query: Tensor) -> dict[str, int]:
    """Return the tile of a kernel, as its keyword arguments."""
    if IS_INTERPRETING:
        tile = INTERPRETED
    else:
        tile = _forced.get(name) or default_tile(
            name, block_dim, query.dtype == torch.float32, current_gpu(query.device)
        )
    return {
        "BLOCK_M": tile.block_m,
        "BLOCK_N": tile.block_n,
        "num_warps": tile.num_warps,
        "num_stages": tile.num_stages,
    }


@functools.cache
def current_gpu(device: torch.device) -> Gpu:
    """Return what the tiles of a GPU depend on."""
    if torch.version.hip is not None:
        return "amd"
    return "hopper" if torch.cuda.get_device_capability(device)[0] in (9, 10) else "ampere"
