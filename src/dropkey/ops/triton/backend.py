"""The ``triton`` backend, as dispatch sees it. Triton itself is imported when a kernel is first launched.

It has not run on a GPU yet: it is tested through Triton's interpreter on the CPU and compiled ahead of time for CUDA's
sm_80, sm_90 and sm_100 and ROCm's gfx942.
"""

import importlib.util
import os

import torch
from torch import Tensor

from dropkey.ops.call import AttentionCall, Draw
from dropkey.ops.triton import operators
from dropkey.patterns import Block, Column, Cross, Element, Geometry, Token

__all__ = ["IS_INTERPRETING", "Triton"]

# Read when this module is imported: a compiled graph cannot ask again.
IS_INSTALLED = importlib.util.find_spec("triton") is not None
IS_INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"  # kernels are run by Triton's interpreter, on the CPU

MAX_DIM = 256
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
PATTERNS = (Element, Column, Token, Block, Cross)


class Triton:
    """Backend for CUDA and ROCm GPUs; with TRITON_INTERPRET=1 set before Triton is imported, slowly on the CPU."""

    name = "triton"

    def unavailable(self) -> str | None:
        """Return why this backend cannot run on this machine, or None."""
        if not IS_INSTALLED:
            return "triton is not installed (pip install triton)"
        return None if IS_INTERPRETING or torch.cuda.is_available() else "torch sees no CUDA or ROCm GPU"

    def refuses(self, call: AttentionCall) -> str | None:
        """Return why this backend cannot run this call, or None."""
        query, bias = call.query, call.attn_bias
        if query.device.type != ("cpu" if IS_INTERPRETING else "cuda"):
            return f"the tensors are on {query.device.type!r}"
        if query.dtype not in DTYPES:
            return f"it takes float32, float16 and bfloat16, not {query.dtype}"
        if max(query.shape[-1], call.value.shape[-1]) > MAX_DIM:
            return f"a head dimension is above {MAX_DIM}"
        return _why_not_drawn(call) or (None if bias is None else _why_not_bias(bias))

    def attend(self, call: AttentionCall) -> Tensor:
        """Return (B, H, Nq, Dv) in the query's dtype, laid out as (B, Nq, H, Dv)."""
        draw = call.draw
        assert draw is not None  # refuses() has seen to it
        kept = None
        if draw.pattern.name == "token":
            kept = draw.keep(*call.mask_shape).flatten(1)
        elif isinstance(draw.pattern, (Block, Cross)):
            kept = _window_bits(draw, draw.pattern, call.mask_shape)
        out: Tensor = operators.forward(
            call.query, call.key, call.value, call.attn_bias, kept, draw.drop_ratio, draw.seed,
            draw.pattern.name, call.is_causal, call.scale,
        )[0]  # fmt: skip
        return out


def _window_bits(draw: Draw, pattern: Block | Cross, mask_shape: tuple[int, int, int, int]) -> Tensor:
    pattern.check(Geometry(*mask_shape, grid_size=draw.grid_size, num_prefix_tokens=draw.num_prefix_tokens))
    assert draw.grid_size is not None  # check() has seen to it
    bits: Tensor = operators.window_bits(
        draw.drop_ratio, draw.seed, *mask_shape, list(draw.grid_size),
        pattern.window_size, pattern.stream, isinstance(pattern, Cross),
    )  # fmt: skip
    return bits


def _why_not_drawn(call: AttentionCall) -> str | None:
    if call.draw is None:
        return "nothing is dropped, which is torch's own attention"
    if type(call.draw.pattern) not in PATTERNS:
        return f"it cannot draw pattern {call.draw.pattern.name!r}"
    return None


def _why_not_bias(bias: Tensor) -> str | None:
    if bias.requires_grad and torch.is_grad_enabled():
        return "attn_bias needs a gradient, which this kernel does not give"
    return "attn_bias is float64" if bias.dtype == torch.float64 else None
