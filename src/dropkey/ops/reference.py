"""The readable oracle: what the operation means, in float32 (float64 for float64), never optimized.

    logits = scale * query @ key^T + attn_bias
    logits = where(keep, logits, DROPPED)      forbidden keys stay -inf, dropped or not
    out    = softmax(logits) @ value

DROPPED lies below every logit, so a query sees its kept keys alone. If all that it is allowed are dropped, it attends
uniformly to these. A row that has no allowed key, or whose kept logits have all overflowed to -inf, gives zeros.
"""

import torch
from torch import Tensor

from dropkey.ops.autocast import without_autocast
from dropkey.ops.backend import Backend
from dropkey.ops.call import AttentionCall, Draw
from dropkey.ops.layout_of_output import laid_out
from dropkey.patterns import Geometry, Token

__all__ = ["Reference", "dropped_softmax", "logits_of", "weights"]


class Reference(Backend):
    """Backend that runs anywhere and materializes the attention weights."""

    name = "reference"

    def unavailable(self) -> str | None:
        """Return why this backend cannot run on this machine, or None."""
        return None

    def refuses(self, call: AttentionCall) -> str | None:
        """Return why this backend cannot run this call, or None."""
        return None

    def attend(self, call: AttentionCall) -> Tensor:
        """Return (B, H, Nq, Dv) in the query's dtype."""
        value = call.expanded().value
        with without_autocast(value):
            attn = weights(call, call.keep())
            out = (attn @ value.to(attn.dtype)).to(call.query.dtype)
        return laid_out(out, call.query)

    def refuses_mask(self, draw: Draw, mask_shape: tuple[int, int, int, int]) -> str | None:
        """Return None: torch draws every mask."""
        return None

    def draw_keep(self, draw: Draw, mask_shape: tuple[int, int, int, int]) -> Tensor:
        """Return the keep mask of a draw, bool, broadcastable to ``mask_shape`` (B, H, Nq, Nk)."""
        return draw.keep(*mask_shape)

    def refuses_tokens(self, draw: Draw) -> str | None:
        """Return None: torch lists the tokens of every draw."""
        return None

    def kept_tokens(self, draw: Draw, geometry: Geometry) -> Tensor:
        """Return them as int64 (B, number of kept), rows of (B * N) tokens, in the order of their ranks."""
        assert isinstance(draw.pattern, Token)
        kept = draw.pattern.kept_keys(draw.seed, draw.drop_ratio.item(), geometry)
        return kept + geometry.num_keys * torch.arange(geometry.batch, device=kept.device)[:, None]


def weights(call: AttentionCall, keep: Tensor | None) -> Tensor:
    """Return the attention weights (B, H, Nq, Nk) of a call under a keep mask, in float32 (float64 for float64)."""
    return dropped_softmax(logits_of(call), keep, call.allowed())


def logits_of(call: AttentionCall) -> Tensor:
    """Return the logits (B, H, Nq, Nk) of a call, biases included, in float32 (float64 for float64)."""
    call = call.expanded()
    dtype = torch.promote_types(call.query.dtype, torch.float32)
    with without_autocast(call.query):
        logits = call.scale * (call.query.to(dtype) @ call.key.to(dtype).mT)
        if call.attn_bias is not None and call.attn_bias.dtype != torch.bool:
            logits = logits + call.attn_bias.to(dtype)
    return logits


def dropped_softmax(logits: Tensor, keep: Tensor | None, allowed: Tensor | None) -> Tensor:
    """Return softmax over the last axis with dropped logits replaced and forbidden keys at exactly 0.

    Args:
        logits: float32 or float64 (..., Nq, Nk).
        keep: bool, broadcastable, True = kept; None = all.
        allowed: bool, broadcastable, False = forbidden; None = all allowed.
    """
    allowed = torch.ones_like(logits[..., :1, :1], dtype=torch.bool) if allowed is None else allowed
    if keep is not None:
        visible = keep & allowed
        # A row that keeps nothing has equal logits: its weights say nothing of query and key, and pass nothing on.
        logits = torch.where(visible, logits, torch.where(visible.any(-1, keepdim=True), -torch.inf, 0.0))
    logits = torch.where(allowed, logits, -torch.inf)
    # A row of -inf is computed as if it were zeros, then made zeros: no NaN, neither here nor in the gradient.
    has_key = (logits != -torch.inf).any(-1, keepdim=True)
    logits = torch.where(has_key, logits, 0.0)
    return torch.where(has_key, logits.softmax(-1), 0.0)
