"""One forward pass of a site's module, and what is written down of its attention calls."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dropkey.ops.call import AttentionCall
from dropkey.philox import draw_seed

__all__ = ["Pass", "Record"]


class Pass:
    """One forward pass of a site's module: its attention calls share their seeds, unless each is another head."""

    def __init__(self, training: bool, one_mask: bool = True, mixer: nn.Module | None = None) -> None:
        self.training = training
        self.one_mask = one_mask
        self.mixer = mixer  # what the module mixes its maps with, if Re-attention was applied
        self.num_calls = 0
        self.seeds: dict[tuple[str, int], Tensor] = {}

    def seed(self, slot: str, device: torch.device) -> Tensor:
        """Return the seed of a slot for this pass (or this call of it), drawn when it is first asked for."""
        key = (slot, 0 if self.one_mask else self.num_calls)
        if key not in self.seeds:
            self.seeds[key] = draw_seed(device)
        return self.seeds[key]


class Record(NamedTuple):
    """What one attention call of a site was given and what it returned; ``verify`` reads it."""

    call: AttentionCall
    out: Tensor  # before Re-attention
    maps_per_mask: int = 1  # softmax maps, next to each other on the head axis, that share one mask
    drops: bool = True
    attn: Tensor | None = None  # weights that Re-attention mixed, after any drop
    mixed: Tensor | None = None  # what the site returned, if Re-attention acted
