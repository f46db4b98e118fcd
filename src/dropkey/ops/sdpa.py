"""The portable backend: torch's scaled_dot_product_attention with the keep mask handed to it."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from dropkey.ops.autocast import without_autocast
from dropkey.ops.backend import Backend
from dropkey.ops.call import AttentionCall, Draw
from dropkey.ops.layout_of_output import laid_out
from dropkey.ops.transforms import beyond_fused

__all__ = ["Sdpa", "plain"]


class Sdpa(Backend):
    """Backend for every device and dtype that torch has attention for; the mask takes memory, the weights do not.

    Args:
        draw_keep: returns the keep mask of a draw for a shape (B, H, Nq, Nk), the fastest way there is.
    """

    name = "sdpa"

    def __init__(self, draw_keep: Callable[[Draw, tuple[int, int, int, int]], Tensor]) -> None:
        self._draw_keep = draw_keep

    def unavailable(self) -> str | None:
        """Return why this backend cannot run on this machine, or None."""
        return None

    def refuses(self, call: AttentionCall) -> str | None:
        """Return why this backend cannot run this call, or None."""
        return beyond_fused(call.query.device)

    def attend(self, call: AttentionCall) -> Tensor:
        """Return (B, H, Nq, Dv) in the query's dtype."""
        if call.draw is None:
            return plain(call)
        draw, call = call.draw, call.expanded()
        keep, allowed = self._draw_keep(draw, call.mask_shape), call.allowed()
        visible = keep if allowed is None else keep & allowed
        has_kept = visible.any(-1, keepdim=True)
        # A row with nothing kept is shown all keys, so that torch has no fully masked row, and is overwritten below.
        mask = (visible | ~has_kept).expand(call.mask_shape)
        if call.attn_bias is not None and call.attn_bias.dtype != torch.bool:
            bias = torch.where(visible, call.attn_bias.to(call.query.dtype), -torch.inf)
            mask = torch.where(has_kept, bias, 0.0).expand(call.mask_shape)
        with without_autocast(call.query):
            out = scaled_dot_product_attention(call.query, call.key, call.value, attn_mask=mask, scale=call.scale)
            return laid_out(torch.where(has_kept, out, _mean_of_allowed(call.value, allowed)), call.query)


def plain(call: AttentionCall) -> Tensor:
    """Run torch's attention on a call that drops nothing: the very call a model would have made itself."""
    bias, is_causal = call.attn_bias, call.is_causal
    if bias is not None and is_causal:  # torch takes one or the other
        bias, is_causal = _causal_bias(call), False
    if bias is not None and bias.dtype not in (torch.bool, torch.float32, call.query.dtype):  # torch takes no other
        bias = bias.to(call.query.dtype)
    return scaled_dot_product_attention(
        call.query,
        call.key,
        call.value,
        attn_mask=bias,
        is_causal=is_causal,
        scale=call.scale,
        enable_gqa=call.query.shape[1] > min(call.key.shape[1], call.value.shape[1]),
    )


def _causal_bias(call: AttentionCall) -> Tensor:
    assert call.attn_bias is not None
    allowed = call.allowed()
    assert allowed is not None
    return allowed if call.attn_bias.dtype == torch.bool else torch.where(allowed, call.attn_bias, -torch.inf)


def _mean_of_allowed(value: Tensor, allowed: Tensor | None) -> Tensor:
    """Return what a row sees that has lost all its keys: the mean of the allowed values, or zeros if there are none."""
    if allowed is None:
        return value.mean(-2, keepdim=True)
    share = allowed.to(value.dtype).expand(*(allowed.shape[:-1] or (1,)), value.shape[-2])
    share = share / share.sum(-1, keepdim=True).clamp(min=1)
    return share @ value
