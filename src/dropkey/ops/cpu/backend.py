"""The ``cpu`` backend: the fused native kernel, forward and backward, in O(N) memory."""

import torch
from torch import Tensor

from dropkey.ops.backend import Backend
from dropkey.ops.call import AttentionCall, Draw
from dropkey.ops.cpu import keep, library, projected
from dropkey.ops.cpu.door import PATTERNS
from dropkey.ops.cpu.keep import numbers_of
from dropkey.ops.cpu.mixed_operators import mixed_operator
from dropkey.ops.cpu.operators import attention_operator
from dropkey.ops.mixing import Mixing
from dropkey.ops.ordinary import of_somebody
from dropkey.ops.projection import Projection
from dropkey.ops.transforms import active_transform
from dropkey.patterns import Geometry

__all__ = ["Cpu"]

_DTYPES = (torch.float32, torch.bfloat16)


class Cpu(Backend):
    """Backend for float32 and bfloat16 on CPUs with a C++ compiler; keep masks are drawn inside and never stored."""

    name = "cpu"
    refuses_strangers = True

    def unavailable(self) -> str | None:
        """Return why this backend cannot run on this machine, or None."""
        reason: str | None = library.unavailable()
        return reason

    def remark(self) -> str | None:
        """Return the instruction set of the kernel, and why it is not another that was asked for."""
        remark: str | None = library.remark()
        return remark

    def refuses(self, call: AttentionCall) -> str | None:
        """Return why this backend cannot run this call, or None."""
        query = call.query
        if query.device.type != "cpu":
            return f"tensors are on {query.device.type}"
        if query.dtype not in _DTYPES:
            return f"dtype is {query.dtype}, not float32 or bfloat16"
        if not query.dtype == call.key.dtype == call.value.dtype:
            return f"dtypes differ: {query.dtype}, {call.key.dtype}, {call.value.dtype}"
        if call.draw is not None and call.draw.pattern.name not in PATTERNS:
            return f"pattern {call.draw.pattern.name!r} is not drawn by the kernel"
        if call.draw is not None and call.draw.candidates is not None:
            return "which keys may be dropped depends on their logits, and the kernel draws by place alone"
        if not call.scale > 0:
            return f"scale is {call.scale}, not positive"
        if 0 in query.shape or 0 in call.key.shape or 0 in call.value.shape:
            return "a tensor is empty"
        somebody = of_somebody(type(query), type(call.key), type(call.value), type(call.attn_bias))
        return active_transform() if somebody is None else f"a tensor is a {somebody}, not one of torch's own"

    def attend(self, call: AttentionCall) -> Tensor:
        """Return (B, H, Nq, Dv) in the query's dtype."""
        _check_pattern(call)
        out: Tensor = attention_operator(
            call.query, call.key, call.value, call.attn_bias, call.scale, call.is_causal, *numbers_of(call.draw)
        )[0]
        return out

    def refuses_mask(self, draw: Draw, mask_shape: tuple[int, int, int, int]) -> str | None:
        """Return why the kernel does not draw a mask of this shape (B, H, Nq, Nk), or None."""
        return keep.why_not_drawn(draw, mask_shape)

    def draw_keep(self, draw: Draw, mask_shape: tuple[int, int, int, int]) -> Tensor:
        """Return the keep mask of a draw, bool (B, H, Nq, Nk)."""
        return keep.draw_keep(draw, mask_shape)

    def refuses_tokens(self, draw: Draw) -> str | None:
        """Return why the kernel does not list the tokens that a draw keeps, or None."""
        return keep.why_not_listed(draw)

    def kept_tokens(self, draw: Draw, geometry: Geometry) -> Tensor:
        """Return them as int64 (B, number of kept), rows of (B * N) tokens, in the order of the keys."""
        return keep.kept_tokens(draw, geometry)

    def refuses_mixing(self, call: AttentionCall) -> str | None:
        """Return why the kernel cannot mix the maps of this call, or None."""
        if call.attn_bias is not None or call.is_causal:
            return "keys are forbidden or biased"
        if call.query.shape[1] != call.key.shape[1]:
            return "key heads are shared"
        return self.refuses(call)

    def attend_mixed(self, call: AttentionCall, mixing: Mixing) -> tuple[Tensor, Tensor]:
        """Return (B, H, Nq, Dv) in the query's dtype, and the variance of each head, float64 (H,)."""
        _check_pattern(call)
        factors = mixing.theta, mixing.gain, mixing.offset, mixing.identity
        out, _, _, _, var = mixed_operator(
            call.query, call.key, call.value, mixing.plain, *factors, mixing.var, mixing.eps, call.scale,
            *numbers_of(call.draw),
        )  # fmt: skip
        return out, var

    def refuses_projection(self, projection: Projection) -> str | None:
        """Return why the kernel cannot run an attention with these linear layers, or None."""
        return projected.why_not_projected(projection)

    def attend_projected(self, projection: Projection, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, N, C'), and what the attention gave, (B, N, H * D)."""
        p = projection
        return projected.attend_projected(p.x, p.weight, p.bias, p.out_weight, p.out_bias, rows, p.num_heads, p.scale)


def _check_pattern(call: AttentionCall) -> None:
    if call.draw is not None:
        call.draw.pattern.check(Geometry(*call.mask_shape, call.draw.grid_size, call.draw.num_prefix_tokens))
