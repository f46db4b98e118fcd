"""A softmax that the library computes itself: its logits as an attention call, and masks that its maps share."""

import torch
from torch import Tensor

from dropkey.ops.call import AttentionCall

__all__ = ["call_of_logits", "per_map"]


def call_of_logits(logits: Tensor) -> AttentionCall:
    """Write logits as an attention call: they are its bias, and the identity as values makes its output the weights."""
    batch, num_maps, num_queries, num_keys = logits.shape
    query, key = logits.new_zeros(()), logits.new_zeros(())
    eye = torch.eye(num_keys, dtype=logits.dtype, device=logits.device).expand(batch, num_maps, -1, -1)
    return AttentionCall(
        query.expand(batch, num_maps, num_queries, 1),
        key.expand(batch, num_maps, num_keys, 1),
        eye,
        logits,
        False,
        1.0,
        None,
    )


def per_map(keep: Tensor, maps_per_mask: int) -> Tensor:
    """Repeat a mask (B, H or 1, ...) for neighboring softmax maps that share it: (B, H * maps_per_mask or 1, ...)."""
    return keep.repeat_interleave(maps_per_mask, dim=1) if keep.shape[1] > 1 and maps_per_mask > 1 else keep
