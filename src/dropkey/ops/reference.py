"""The readable oracle: what the operation means, in float32 (float64 for float64), never optimised.

    logits = scale * query @ key^T + attn_bias
    logits = where(keep, logits, DROPPED)      forbidden keys stay -inf, dropped or not
    out    = softmax(logits) @ value

A row whose allowed keys are all dropped attends uniformly to its allowed keys; a row without allowed keys gives zeros.
"""

import torch
from torch import Tensor

from dropkey.ops.call import AttentionCall

__all__ = ["DROPPED", "Reference", "dropped_softmax", "weights"]

DROPPED = -1e30  # in float32 or float64: so far below any logit that exp() of the difference is exactly 0


class Reference:
    """Backend that runs anywhere and materialises the attention weights."""

    name = "reference"

    def unavailable(self) -> str | None:
        """Return why this backend cannot run on this machine, or None."""
        return None

    def remark(self) -> str | None:
        """Return what is known of it on this machine besides, or None."""
        return None

    def refuses(self, call: AttentionCall) -> str | None:
        """Return why this backend cannot run this call, or None."""
        return None

    def attend(self, call: AttentionCall) -> Tensor:
        """Return (B, H, Nq, Dv) in the query's dtype."""
        value = call.expanded().value
        attn = weights(call, call.keep())
        return (attn @ value.to(attn.dtype)).to(call.query.dtype)


def weights(call: AttentionCall, keep: Tensor | None) -> Tensor:
    """Return the attention weights (B, H, Nq, Nk) of a call under a keep mask, in float32 (float64 for float64)."""
    call = call.expanded()
    dtype = torch.promote_types(call.query.dtype, torch.float32)
    logits = call.scale * call.query.to(dtype) @ call.key.to(dtype).mT
    if call.attn_bias is not None and call.attn_bias.dtype != torch.bool:
        logits = logits + call.attn_bias.to(dtype)
    return dropped_softmax(logits, keep, call.allowed())


def dropped_softmax(logits: Tensor, keep: Tensor | None, allowed: Tensor | None) -> Tensor:
    """Return softmax over the last axis with dropped logits replaced and forbidden keys at exactly 0.

    Args:
        logits: float32 or float64 (..., Nq, Nk).
        keep: bool, broadcastable, True = kept; None = all.
        allowed: bool, broadcastable, False = forbidden; None = all allowed.
    """
    if keep is not None:
        logits = torch.where(keep, logits, DROPPED)
    if allowed is None:
        return logits.softmax(-1)
    # A row without any allowed key is computed as if all were, then zeroed: no NaN, neither here nor in the gradient.
    has_key = allowed.any(-1, keepdim=True)
    logits = torch.where(allowed | ~has_key, logits, -torch.inf)
    logits = torch.where(has_key, logits, 0.0)
    return torch.where(has_key, logits.softmax(-1), 0.0)
