"""One act of dropping, as it was seen in a forward pass."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["Drop", "DropKind", "fingerprint", "unit_of"]

DropKind = Literal["values", "weights", "keys", "selection", "opaque", "other"]


@dataclass
class Drop:
    """What one random mask did.

    Args:
        kind: "values" set to zero; attention "weights" after the softmax; "keys" before it, by a large negative
            number; a random "selection" of tokens; "opaque" where a kernel drops inside; "other" use of random numbers.
        unit: what shares one draw: "element", "channel", "sample", "batch" or "shared" (some other axes).
        draws: independent draws in the mask; 0 if they are not independent, or not seen.
        dropped: how many of them dropped.
        rate: chance of a drop by the arguments of the call, where it can be read.
        scales: what the kept values may have been multiplied by, as far as it belongs to the mask.
        fingerprint: a number that two equal masks share.
        remark: what is wrong with it in itself.
    """

    kind: DropKind
    unit: str = "element"
    draws: int = 0
    dropped: int = 0
    rate: float | None = None
    scales: list[float] = field(default_factory=list)
    tolerance: float = 1e-3  # relative, of a scale: masks in half precision are rounded
    fingerprint: int | None = None
    remark: str = ""
    share: float | None = None  # of a selection
    owner: nn.Module | None = None
    place: int = 0  # among the drops of one forward of its owner


def unit_of(mask: Tensor, values: Tensor) -> str:
    """Say what shares one draw of a mask that was multiplied with values."""
    sizes = [1] * (values.dim() - mask.dim()) + [
        1 if stride == 0 else size for size, stride in zip(mask.shape, mask.stride(), strict=True)
    ]
    if len(sizes) != values.dim():
        return "shared"
    drawn = [axis for axis, size in enumerate(sizes) if size > 1 or values.shape[axis] == 1]
    if len(drawn) == values.dim():
        return "element"
    varying = [axis for axis, size in enumerate(sizes) if size > 1]
    if not varying:
        return "batch" if values.shape[0] > 1 else "sample"
    return {(0,): "sample", (0, 1): "channel"}.get(tuple(varying), "shared")


def fingerprint(mask: Tensor) -> int:
    """Return a number that equal masks share, and others hardly ever."""
    flat = mask.reshape(-1).to(torch.int64)
    weights = torch.arange(1, flat.numel() + 1, device=flat.device)
    for _ in range(3):  # far from linear: sets of places with the same sum must not look alike
        weights = (weights * weights + 2654435761).remainder_(2**31 - 1)
    return int((flat * weights).sum())
