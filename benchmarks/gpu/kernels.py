"""Our kernels as every section calls them, and whether they can run here at all."""

import functools
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.record import NotHere
from dropkey.ops.call import AttentionCall, Draw
from dropkey.ops.triton.backend import IS_INTERPRETING, Triton
from dropkey.patterns import Pattern, named_pattern

__all__ = ["call_of", "design", "device", "need_gpu", "need_kernels", "outcomes"]


def device() -> str:
    """Return where tensors go."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def need_gpu() -> None:
    """Say that a check needs a GPU where there is none."""
    if not torch.cuda.is_available():
        raise NotHere("needs a GPU")


@functools.cache
def _why_not() -> str | None:
    if torch.cuda.is_available():
        return None
    if not IS_INTERPRETING:
        return "needs a GPU, or Triton's interpreter"
    try:
        from benchmarks.gpu.probe import probe

        probe()
    except Exception as error:
        return f"Triton's interpreter fails here: {type(error).__name__}: {str(error).splitlines()[-1][:160]}"
    return None


def need_kernels() -> None:
    """Say why kernels cannot run here, if they cannot."""
    reason = _why_not()
    if reason:
        raise NotHere(reason)


def design(name: str) -> Triton:
    """Return the backend with a way to draw; "" is what a user gets."""
    need_kernels()
    if not name:
        return Triton()
    try:
        return Triton(design=name)
    except TypeError as error:
        raise NotHere(f"this version cannot choose a design: {error}") from None


def call_of(
    tensors: list[Tensor],
    ratio: float | Tensor = 0.3,
    pattern: str | Pattern = "element",
    seed: int | Tensor = 11,
    attn_bias: Tensor | None = None,
    is_causal: bool = False,
    **grid: Any,
) -> AttentionCall:
    """Return a call of query, key and value."""
    query, key, value = tensors[:3]
    draw = Draw.of(named_pattern(pattern), ratio, seed, query.device, **grid)
    return AttentionCall(query, key, value, attn_bias, is_causal, query.shape[-1] ** -0.5, draw)


def outcomes() -> dict[str, str]:
    """Return what the package's own test of its kernels has found in this process, where it has one."""
    try:
        from dropkey.ops.triton import selftest
    except ImportError:
        return {}
    return selftest.outcomes()
