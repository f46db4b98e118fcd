"""From tensors to kernels: grids, strides, thresholds and tiles."""

import functools
from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor

from dropkey.ops.triton.backend import IS_INTERPRETING
from dropkey.ops.triton.backward import key_value_kernel, query_kernel
from dropkey.ops.triton.forward import forward_kernel
from dropkey.ops.triton.tiles import INTERPRETED, Gpu, Tile, candidate_tiles, default_tile

__all__ = ["Launch", "launch_backward", "launch_forward"]

LOG2_E = 1.4426950408889634
_PATTERNS = {"element": 0, "column": 1, "token": 2, "block": 3, "cross": 3}
_KERNELS = {"forward": forward_kernel, "query": query_kernel, "key_value": key_value_kernel}


class Launch:
    """What every kernel of one call is launched with."""

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_bias: Tensor | None,
        kept: Tensor | None,
        drop_ratio: Tensor,
        seed: Tensor,
        pattern: str,
        is_causal: bool,
        scale: float,
    ) -> None:
        self.query, self.key, self.value = (with_unit_stride(tensor) for tensor in (query, key, value))
        batch, self.num_heads, self.num_queries, dim = query.shape
        self.num_keys, value_dim = value.shape[-2:]
        self.batch, self.scale = batch, scale
        self.bias, self.bias_strides = _bias_of(attn_bias, (batch, self.num_heads, self.num_queries, self.num_keys))
        self.kept = None if kept is None else kept.view(torch.uint8)
        self.base_scale = scale if query.dtype == torch.float32 else scale * LOG2_E  # see ``exponential``
        self.seed, self.threshold = seed, threshold_of(drop_ratio)
        self.options: dict[str, Any] = {
            "GROUP": self.num_heads // key.shape[1],
            "PATTERN": _PATTERNS[pattern],
            "BIAS": 0 if attn_bias is None else 2 if attn_bias.dtype == torch.bool else 1,
            "BIAS_PER_QUERY": self.bias_strides[2] != 0,
            "BIAS_MIN": _smallest(attn_bias),
            "CAUSAL": is_causal,
            "UPCAST": IS_INTERPRETING and query.dtype == torch.bfloat16,
            "DIM": dim,
            "BLOCK_DIM": padded(dim),
            "VALUE_DIM": value_dim,
            "BLOCK_VALUE_DIM": padded(value_dim),
        }

    @property
    def is_empty(self) -> bool:
        """Whether there is no pair of a query and a key."""
        return 0 in (self.batch, self.num_heads, self.num_queries, self.num_keys)

    def run(self, name: str, num_heads: int, length: str, *args: Any) -> None:
        """Launch a kernel over tiles of ``length`` ("BLOCK_M" or "BLOCK_N") of ``num_heads`` heads a batch."""
        tokens = self.num_queries if length == "BLOCK_M" else self.num_keys
        grid = lambda meta: (self.batch * num_heads * triton.cdiv(tokens, meta[length]),)  # noqa: E731
        length_class = max(self.num_queries, self.num_keys).bit_length()
        with torch.cuda.device_of(self.query):  # type: ignore[no-untyped-call]
            kernel, tile = _chosen(name, self.options["BLOCK_DIM"], self.options["BLOCK_VALUE_DIM"], self.query.dtype)
            kernel[grid](*args, length_class, **self.options, **tile)


def launch_forward(launch: Launch, out: Tensor, row_stats: Tensor) -> None:
    """Fill ``out`` and ``row_stats``."""
    if launch.is_empty:
        out.zero_()
        return
    c = launch
    c.run(
        "forward", c.num_heads, "BLOCK_M",
        c.query, c.key, c.value, c.bias, c.kept, c.seed, out, row_stats, c.threshold, c.base_scale,
        c.query.stride(), c.key.stride(), c.value.stride(), c.bias_strides, out.stride(),
        c.num_heads, c.num_queries, c.num_keys,
    )  # fmt: skip


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
    c, grad_out = launch, with_unit_stride(grad_out)
    delta = torch.empty_like(row_stats[0])
    c.run(
        "query", c.num_heads, "BLOCK_M",
        c.query, c.key, c.value, c.bias, c.kept, c.seed, out, grad_out, row_stats, delta, grad_query,
        c.threshold, c.base_scale, c.scale,
        c.query.stride(), c.key.stride(), c.value.stride(), c.bias_strides, out.stride(), grad_out.stride(),
        grad_query.stride(), c.num_heads, c.num_queries, c.num_keys, delta.numel(),
    )  # fmt: skip
    c.run(
        "key_value", c.key.shape[1], "BLOCK_N",
        c.query, c.key, c.value, c.bias, c.kept, c.seed, grad_out, row_stats, delta, grad_key, grad_value,
        c.threshold, c.base_scale, c.scale,
        c.query.stride(), c.key.stride(), c.value.stride(), c.bias_strides, grad_out.stride(), grad_key.stride(),
        grad_value.stride(), c.num_heads, c.num_queries, c.num_keys, delta.numel(),
    )  # fmt: skip


def with_unit_stride(tensor: Tensor) -> Tensor:
    """Return the tensor, copied only where its last axis is not laid out side by side."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def padded(dim: int) -> int:
    """Return the power of two that a head dimension is padded to; the matrix units want 16 at least."""
    return max(16, 1 << (dim - 1).bit_length())


def threshold_of(drop_ratio: Tensor) -> int | Tensor:
    """Return what 16 random bits are compared with.

    The ratio is on the CPU, as a rule, and reading it there waits for nothing; from elsewhere it is not read.
    """
    threshold = torch.round(drop_ratio * 65536).to(torch.int32)
    return threshold if threshold.is_cuda else int(threshold.item())


def _smallest(attn_bias: Tensor | None) -> float:
    """Return the number at or below which a bias forbids a key."""
    if attn_bias is None or not attn_bias.is_floating_point():
        return 0.0
    return torch.finfo(attn_bias.dtype).min


def _bias_of(attn_bias: Tensor | None, shape: tuple[int, ...]) -> tuple[Tensor | None, tuple[int, ...]]:
    if attn_bias is None:
        return None, (0, 0, 0, 0)
    expanded = attn_bias.detach().expand(shape)
    return (expanded.view(torch.uint8) if expanded.dtype == torch.bool else expanded), expanded.stride()


def _chosen(name: str, block_dim: int, block_value_dim: int, dtype: torch.dtype) -> tuple[Any, dict[str, int]]:
    """Return a kernel and its tile: the autotuned kernel that chooses itself, or the plain one with a fixed tile."""
    if IS_INTERPRETING:
        return _KERNELS[name], _meta(INTERPRETED)
    wide, is_float32, gpu = max(block_dim, block_value_dim), dtype == torch.float32, current_gpu()
    if torch.are_deterministic_algorithms_enabled():  # times differ from run to run, and with tiles the rounding
        return _KERNELS[name], _meta(default_tile(name, wide, is_float32, gpu))
    return _autotuned(name, wide, is_float32, gpu), {}


def current_gpu() -> Gpu:
    """Return what the tiles of the current GPU depend on."""
    if torch.version.hip is not None:
        return "amd"
    return "hopper" if torch.cuda.get_device_capability()[0] in (9, 10) else "ampere"


def _meta(tile: Tile) -> dict[str, int]:
    return {
        "BLOCK_M": tile.block_m,
        "BLOCK_N": tile.block_n,
        "num_warps": tile.num_warps,
        "num_stages": tile.num_stages,
    }


@functools.cache
def _autotuned(name: str, block_dim: int, is_float32: bool, gpu: Gpu) -> Callable[..., Any]:
    configs = [
        triton.Config({"BLOCK_M": m, "BLOCK_N": n}, num_warps=warps, num_stages=stages)
        for m, n, warps, stages in candidate_tiles(name, block_dim, is_float32, gpu)
    ]
    key = ["length_class", "PATTERN", "BIAS", "CAUSAL", "BLOCK_DIM", "BLOCK_VALUE_DIM", "GROUP"]
    autotuned: Callable[..., Any] = triton.autotune(configs=configs, key=key)(_KERNELS[name])
    return autotuned
