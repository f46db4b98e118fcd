"""The ``triton`` backend, as dispatch sees it. Triton itself is imported when a kernel is first launched.

It has run on NVIDIA's Hopper. For others (CUDA's sm_80 and sm_100, ROCm's gfx942) it is compiled ahead of time and
tested through Triton's interpreter on the CPU; everywhere it tests itself at the first use of a kind of call.
"""

import importlib.util
import sys

import torch
from torch import Tensor
from torch.nn import Parameter

from dropkey.ops.backend import Backend
from dropkey.ops.call import AttentionCall, Draw
from dropkey.ops.ordinary import of_somebody
from dropkey.ops.transforms import active_transform
from dropkey.ops.triton import operators
from dropkey.ops.triton.tiles import IS_INTERPRETING, IS_TESTING
from dropkey.patterns import Block, Column, Cross, Element, Geometry, Token

__all__ = ["DESIGNS", "Triton"]

# Read when this module is imported: a compiled graph cannot ask again.
IS_INSTALLED = importlib.util.find_spec("triton") is not None

MAX_DIM = 256
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
PATTERNS = (Element, Column, Token, Block, Cross)
DESIGNS = ("inline", "stored", "ahead", "off")


class Triton(Backend):
    """Backend for CUDA and ROCm GPUs; with TRITON_INTERPRET=1 set before Triton is imported, slowly on the CPU.

    Args:
        design: who draws the mask of "element". "inline": every kernel, so nothing is kept. "stored": forward, which
            keeps a bit a pair for backward. "ahead": a kernel of its own before them, which may run beside other work.
            "off": nobody, and nothing is dropped; for measurements of what the draw costs.
    """

    name = "triton"
    refuses_strangers = True

    def __init__(self, design: str = "inline") -> None:
        assert design in DESIGNS
        self.design = design

    def unavailable(self) -> str | None:
        """Return why this backend cannot run on this machine, or None."""
        if not IS_INSTALLED:
            return "triton is not installed (pip install triton)"
        return None if IS_INTERPRETING or torch.cuda.is_available() else "torch sees no CUDA or ROCm GPU"

    def remark(self) -> str | None:
        """Return what the self-tests of this process have found, or None if there was none."""
        if "dropkey.ops.triton.self_test" not in sys.modules:  # no kernel was launched
            return None
        from dropkey.ops.triton.self_test import outcomes

        found = outcomes()
        failed = [f"not used for {kind}: {reason}" for kind, reason in found.items() if reason != "passed"]
        passed = [f"passed its self-test for {kind}" for kind, reason in found.items() if reason == "passed"]
        return "; ".join(failed + passed) or None

    def refuses(self, call: AttentionCall) -> str | None:
        """Return why this backend cannot run this call, or None."""
        query, bias = call.query, call.attn_bias
        if query.device.type != ("cpu" if IS_INTERPRETING else "cuda"):
            return f"the tensors are on {query.device.type!r}"
        if query.dtype not in DTYPES:
            return f"it takes float32, float16 and bfloat16, not {query.dtype}"
        if max(query.shape[-1], call.value.shape[-1]) > MAX_DIM:
            return f"a head dimension is above {MAX_DIM}"
        somebody = of_somebody(type(query), type(call.key), type(call.value), type(bias))
        if somebody is not None:
            return f"a tensor is a {somebody}, not one of torch's own"
        return active_transform() or _why_not_drawn(call) or (None if bias is None else _why_not_bias(bias))

    def distrusts(self, call: AttentionCall) -> str | None:
        """Test a kind at its first use, if this is no trace of a call: there the operator does it when it runs."""
        if not IS_TESTING or torch.compiler.is_compiling() or type(call.query) not in (Tensor, Parameter):
            return None
        from dropkey.ops.triton import self_test

        assert call.draw is not None
        pattern, is_stored = self._pattern(call.draw)
        inputs = self_test.Inputs(
            *call[:4], None, call.draw.drop_ratio, call.draw.seed, pattern, call.is_causal, call.scale
        )
        return self_test.why_refused(inputs, is_stored)

    def _pattern(self, draw: Draw) -> tuple[str, bool]:
        """Return which pattern the kernels are told, and whether forward keeps what it draws."""
        name = draw.pattern.name
        if name != "element":
            return name, False
        return {"off": "none", "ahead": "bits"}.get(self.design, name), self.design == "stored"

    def attend(self, call: AttentionCall, bits: Tensor | None = None) -> Tensor:
        """Return (B, H, Nq, Dv) in the query's dtype, laid out like the query.

        ``bits`` are what ``operators.element_bits`` has drawn beforehand, for the design "ahead".
        """
        draw = call.draw
        assert draw is not None  # refuses() has seen to it
        pattern, is_stored = self._pattern(draw)
        kept = bits
        if pattern == "token":
            batch, num_heads, _, num_keys = call.mask_shape
            kept = operators.kept_tokens(draw.drop_ratio, draw.seed, batch, num_heads, num_keys)
        elif isinstance(draw.pattern, Block | Cross):
            kept = _window_bits(draw, draw.pattern, call.mask_shape)
        elif pattern == "bits" and kept is None:
            kept = operators.element_bits(draw.drop_ratio, draw.seed, *call.mask_shape)
        out: Tensor = operators.forward(
            call.query, call.key, call.value, call.attn_bias, kept, draw.drop_ratio, draw.seed,
            pattern, call.is_causal, call.scale, is_stored,
        )[0]  # fmt: skip
        return out

    def refuses_tokens(self, draw: Draw) -> str | None:
        """Return why this backend does not list the tokens that a draw keeps, or None; the first call tests it."""
        if not IS_INSTALLED or not draw.seed.is_cuda:
            return "triton is not installed" if draw.seed.is_cuda else "the seed is on no GPU"
        if type(draw.seed) is not Tensor:
            return f"the seed is a {type(draw.seed).__name__}"
        return active_transform() or _why_not_listed(draw.seed.device)

    def kept_tokens(self, draw: Draw, geometry: Geometry) -> Tensor:
        """Return them as int64 (B, number of kept), rows of (B * N) tokens, in the order of the keys.

        Nothing waits for the GPU: how many there are is read off the ratio, which is on the CPU.
        """
        assert isinstance(draw.pattern, Token)
        batch, num_heads, _, num_keys = geometry[:4]
        kept = operators.kept_tokens(draw.drop_ratio, draw.seed, batch, num_heads, num_keys)
        num_kept = draw.pattern.num_kept(draw.drop_ratio.item(), num_keys)
        # The kept ones first, in their order.
        order = kept.view(torch.uint8).argsort(dim=-1, descending=True, stable=True)[:, :num_kept]
        rows: Tensor = order + num_keys * torch.arange(batch, device=kept.device)[:, None]
        return rows


def _window_bits(draw: Draw, pattern: Block | Cross, mask_shape: tuple[int, int, int, int]) -> Tensor:
    pattern.check(Geometry(*mask_shape, grid_size=draw.grid_size, num_prefix_tokens=draw.num_prefix_tokens))
    assert draw.grid_size is not None  # check() has seen to it
    rows, cols = draw.grid_size
    is_cross = isinstance(pattern, Cross)
    threshold = draw.seed_threshold
    if threshold is None:
        threshold = pattern.seed_threshold(draw.drop_ratio, (rows, cols))
    bits: Tensor = operators.window_bits(
        draw.drop_ratio, threshold, draw.seed, *mask_shape, [rows, cols], pattern.window_size, pattern.stream, is_cross
    )
    return bits


def _why_not_drawn(call: AttentionCall) -> str | None:
    if call.draw is None:
        return "nothing is dropped, which is torch's own attention"
    if type(call.draw.pattern) not in PATTERNS:
        return f"it cannot draw pattern {call.draw.pattern.name!r}"
    if call.draw.candidates is not None:
        return "which keys may be dropped depends on their logits, and it draws by place alone"
    return None


def _why_not_listed(device: torch.device) -> str | None:
    from dropkey.ops.triton.self_test import trusts_tokens

    return "its kept tokens failed their test" if IS_TESTING and not trusts_tokens(device) else None


def _why_not_bias(bias: Tensor) -> str | None:
    if bias.requires_grad and torch.is_grad_enabled():
        return "attn_bias needs a gradient, which this kernel does not give"
    return "attn_bias is float64" if bias.dtype == torch.float64 else None
