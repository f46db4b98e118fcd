"""One mixing of attention maps over the heads, as every backend receives it: Re-attention, reduced to numbers.

mixed[h] = sum over g of theta[h, g] / sqrt(var[h] + eps) * (attn[g] - 1 / Nk)
out[h]   = identity * plain[h] + gain[h] * mixed[h] @ value[h] + offset[h] * (sum of value[h] over the keys)
"""

from typing import NamedTuple

from torch import Tensor

__all__ = ["Mixing"]


class Mixing(NamedTuple):
    """What maps are mixed with; H is the number of heads. ``plain`` and ``identity`` are given together, or neither."""

    theta: Tensor  # float32 (H, H)
    gain: Tensor  # float32 (H,)
    offset: Tensor  # float32 (H,)
    eps: float
    identity: Tensor | None = None  # float32 (1,), factor of ``plain``
    plain: Tensor | None = None  # (B, H, Nq, Dv), the output without mixing; query, key and value get its gradient too
    var: Tensor | None = None  # float64 (H,), of the mixed maps; None takes that of the batch, as in training
