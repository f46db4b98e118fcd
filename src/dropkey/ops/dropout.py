"""Dropout of attention weights after the softmax: the baselines that DropKey is compared with."""

from torch import Tensor
from torch.nn.functional import dropout, scaled_dot_product_attention

from dropkey.ops.call import AttentionCall
from dropkey.ops.reference import weights

__all__ = ["attend_with_dropout", "drop_weights", "renormalized_dropout"]

_SMALLEST_SUM = 1e-20  # a row that has lost all its weights has sum 0 and stays 0


def attend_with_dropout(call: AttentionCall, drop_ratio: float, keep: Tensor | None) -> Tensor:
    """Attend, then drop attention weights; both DropKey's draw and this dropout act if the call has a draw.

    Args:
        call: see AttentionCall.
        drop_ratio: share of weights dropped, in [0, 1).
        keep: bool, broadcastable to (B, H, Nq, Nk), for the renormalized form; None for torch's form, which draws its
            own mask from torch's generator.

    Returns:
        (B, H, Nq, Dv) in the query's dtype.
    """
    if keep is None and call.draw is None and not (call.attn_bias is not None and call.is_causal):
        return scaled_dot_product_attention(
            call.query,
            call.key,
            call.value,
            attn_mask=call.attn_bias,
            dropout_p=drop_ratio,
            is_causal=call.is_causal,
            scale=call.scale,
            enable_gqa=call.query.shape[1] != call.key.shape[1],
        )
    attn = drop_weights(weights(call, call.keep()), drop_ratio, keep)
    return (attn @ call.expanded().value.to(attn.dtype)).to(call.query.dtype)


def drop_weights(attn: Tensor, drop_ratio: float, keep: Tensor | None) -> Tensor:
    """Drop from attention weights (..., Nq, Nk): torch's form, or the renormalized one where a mask is given."""
    return dropout(attn, drop_ratio) if keep is None else renormalized_dropout(attn, keep)


def renormalized_dropout(attn: Tensor, keep: Tensor) -> Tensor:
    """Divide the kept weights by their sum, which passes no gradient.

    With the sum attached this would be DropKey itself, forward and backward. A row that has lost all its weights gives
    zeros.

    Source: the Dropout baseline of Li et al., CVPR 2023 (also known as DropAttention).
    """
    kept = attn * keep
    return kept / kept.sum(-1, keepdim=True).detach().clamp(min=_SMALLEST_SUM)
