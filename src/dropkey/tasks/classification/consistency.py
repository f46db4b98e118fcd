"""Consistency of two passes over the same images, each with draws of its own."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["doubled", "inconsistency"]


def doubled(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return each tensor (B, ...) twice, (2 * B, ...): one pass over it is two, since everything draws by place."""
    return tuple(torch.cat([tensor, tensor]) for tensor in tensors)


def inconsistency(logits: Tensor) -> Tensor:
    """Return how much two passes differ: the mean of both Kullback-Leibler divergences, averaged over the images.

    Args:
        logits: (2 * B, classes), of a batch that was doubled.

    Returns:
        A number in nats, 0 or more; gradients flow through both passes.

    Source: Liang et al., R-Drop, NeurIPS 2021 (arXiv 2106.14448), equation 2; also the loss that HiddenKey adds (Wang
    et al., LoRA Meets Dropout under a Unified Framework, ACL 2024, arXiv 2403.00812). Departure from R-Drop: the cross
    entropy beside it is the mean of both passes, not their sum, so that a learning rate keeps its meaning.
    """
    one, other = logits.float().log_softmax(-1).chunk(2)
    forth = F.kl_div(one, other, reduction="batchmean", log_target=True)
    back = F.kl_div(other, one, reduction="batchmean", log_target=True)
    return (forth + back) / 2
