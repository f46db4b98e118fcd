"""One forward pass of a site's module, and the ratio of one attention call in it."""

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes

from dropkey.ops.transforms import check_randomness
from dropkey.philox import draw_seed

__all__ = ["ForwardPass", "ratio_of_call"]


class ForwardPass:
    """One forward pass of a site's module: each of its attention calls draws by itself.

    Unless ``one_mask`` says that they are maps of the same heads, which lose the same keys.
    """

    def __init__(self, module: nn.Module, one_mask: bool = False) -> None:
        self.module = module
        self.training = module.training
        self.one_mask = one_mask
        self.num_calls = 0
        self.seeds: dict[tuple[str, int], Tensor] = {}

    def seed(self, slot: str, device: torch.device) -> Tensor:
        """Return the seed of a slot for this call (or for the pass, of maps that share it), drawn when first asked."""
        key = (slot, 0 if self.one_mask else self.num_calls)
        if key not in self.seeds:
            check_randomness()
            self.seeds[key] = draw_seed(device)
        return self.seeds[key]


def ratio_of_call(ratio: Tensor, is_fake: bool) -> Tensor:
    """Return a copy of a slot's drop ratio for one call: the slot's may have changed when the call is differentiated.

    Args:
        ratio: float64 (), on the CPU.
        is_fake: whether the tensors of the call are fake; then so must the ratio be.
    """
    if is_fake and type(ratio) is not FakeTensor:
        with _disable_current_modes():
            value = float(ratio)
        return torch.full((), value, dtype=ratio.dtype, device="cpu")
    return ratio.clone()
