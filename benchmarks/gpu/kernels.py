"""Our kernels as every section calls them, and whether they can run here at all."""

import functools
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.record import NotHere
from dropkey.ops.call import AttentionCall, Draw
from dropkey.ops.triton import backend, operators
from dropkey.ops.triton.backend import Triton
from dropkey.patterns import Pattern, named_pattern

__all__ = ["call_of", "design", "device", "need_gpu", "need_kernels", "trust_kernels", "with_outcomes"]


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
    from benchmarks.gpu.probe import IS_INTERPRETING, probe

    if not IS_INTERPRETING:
        return "needs a GPU, or Triton's interpreter"
    try:
        probe()
    except Exception as error:
        return f"Triton's interpreter fails here: {type(error).__name__}: {str(error).splitlines()[-1][:160]}"
    return None


def need_kernels() -> None:
    """Say why kernels cannot run here, if they cannot."""
    reason = _why_not()
    if reason:
        raise NotHere(reason)


def trust_kernels() -> None:
    """Run the kernels themselves, right or wrong: nothing may stand in for one that fails its own test."""
    operators.IS_TESTING = backend.IS_TESTING = False


def design(name: str) -> Triton:
    """Return the backend with a way to draw; "" is what a user gets."""
    need_kernels()
    if not name:
        return Triton()
    try:
        return Triton(design=name)
    except (AssertionError, TypeError) as error:
        raise NotHere(f"this version has no design {name!r} ({error})") from None


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


def with_outcomes(facts: dict[str, Any]) -> dict[str, Any]:
    """Add what the package's own test of its kernels has found in this process; where it failed, so does the case.

    Nothing that was measured is worth anything then: something else ran in the place of the kernel.
    """
    try:
        from dropkey.ops.triton.self_test import outcomes
    except ImportError:
        return facts
    found = outcomes()
    failed = [f"{kind}: {text}" for kind, text in found.items() if text != "passed"]
    if found:
        facts = {**facts, "self_test": found}
    if failed and facts["state"] in ("pass", "measured"):
        facts.update(state="fail", error=f"a self-test failed: {failed[0]}")
    return facts
