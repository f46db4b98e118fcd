"""The ``cpu`` backend: the fused native kernel, forward and backward, in O(N) memory."""

import torch
from torch import Tensor

from dropkey.ops.backend import Backend
from dropkey.ops.call import AttentionCall
from dropkey.ops.cpu import library
from dropkey.ops.cpu.keep import numbers_of
from dropkey.ops.cpu.library import PATTERNS
from dropkey.ops.cpu.operators import attention_operator
from dropkey.ops.ordinary import of_somebody
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
        if not call.scale > 0:
            return f"scale is {call.scale}, not positive"
        if 0 in query.shape or 0 in call.key.shape or 0 in call.value.shape:
            return "a tensor is empty"
        somebody = of_somebody(query, call.key, call.value, call.attn_bias)
        return active_transform() if somebody is None else f"a tensor is a {somebody}, not one of torch's own"

    def attend(self, call: AttentionCall) -> Tensor:
        """Return (B, H, Nq, Dv) in the query's dtype."""
        if call.draw is not None:
            call.draw.pattern.check(Geometry(*call.mask_shape, call.draw.grid_size, call.draw.num_prefix_tokens))
        out: Tensor = attention_operator(
            call.query, call.key, call.value, call.attn_bias, call.scale, call.is_causal, *numbers_of(call.draw)
        )[0]
        return out
