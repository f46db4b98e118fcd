"""The keys that a query attends to most, as candidates for a drop that depends on content."""

import torch
from torch import Tensor

from dropkey.ops.call import AttentionCall
from dropkey.ops.reference import logits_of

__all__ = ["num_top_keys", "top_keys"]


def num_top_keys(num_keys: int, share: float) -> int:
    """Return how many keys a share in (0, 1] is: the nearest whole number, and one at least."""
    return max(1, round(share * num_keys))


@torch.no_grad()
def top_keys(call: AttentionCall, share: float) -> Tensor:
    """Return which keys have the largest logits of their query: every query has the same number of them.

    The logits are computed for this alone, in float32 at least: time and memory are quadratic in the number of tokens.

    Args:
        call: see AttentionCall; its draw is not looked at. Of forbidden keys none comes before one that is allowed.
        share: of all keys, in (0, 1].

    Returns:
        bool (B, H, Nq, Nk); no gradient flows through the choice.
    """
    logits, allowed = logits_of(call), call.allowed()
    if allowed is not None:
        logits = torch.where(allowed, logits, -torch.inf)
    places = logits.topk(num_top_keys(logits.shape[-1], share), dim=-1, sorted=False).indices
    return torch.zeros_like(logits, dtype=torch.bool).scatter(-1, places, True)
