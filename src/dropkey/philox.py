"""Counter-based random bits: Philox4x32 with 7 rounds, the same on every device and whatever the tiling.

A draw is a pure function of a 64-bit seed and four 32-bit coordinates, so a mask never has to be stored: whoever knows
the seed and the position can draw it again. Words are held in int64 tensors with values in [0, 2**32), since torch's
unsigned 32-bit type has no multiplication on most devices.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (7 rounds pass BigCrush).
"""

import contextlib
import operator
from typing import Any

import torch
from torch import Tensor

from dropkey.errors import ArgumentError

__all__ = ["Words", "draw_seed", "philox4x32", "seed_tensor"]

Words = tuple[Tensor, Tensor, Tensor, Tensor]

NUM_ROUNDS = 7
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_LOW_32 = 0xFFFFFFFF
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64)
_RANK_STEP = 0x9E3779B97F4A7C15  # the golden ratio: neighboring ranks get distant seeds


def philox4x32(counter: Words, seed: Tensor) -> Words:
    """Return four 32-bit words for every counter.

    Args:
        counter: four int64 tensors in [0, 2**32), broadcastable against each other.
        seed: int64 tensor of shape (), all 64 bits used: the low half is the first key word.

    Returns:
        Four int64 tensors in [0, 2**32) of the broadcast shape.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = seed & _LOW_32, (seed >> 32) & _LOW_32
    for _ in range(NUM_ROUNDS):
        # The product wraps modulo 2**64; its two halves are right all the same once the sign bits are masked away.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1 = ((p1 >> 32) ^ c1 ^ k0) & _LOW_32, p1 & _LOW_32
        c2, c3 = ((p0 >> 32) ^ c3 ^ k1) & _LOW_32, p0 & _LOW_32
        k0, k1 = (k0 + _KEY_STEPS[0]) & _LOW_32, (k1 + _KEY_STEPS[1]) & _LOW_32
    return c0, c1, c2, c3


def seed_tensor(seed: int | Tensor, device: torch.device) -> Tensor:
    """Return ``seed`` as an int64 tensor of shape () on ``device``; integers are taken modulo 2**64.

    Raises:
        ArgumentError: neither an integer (NumPy's too) nor an integer tensor of shape ().
    """
    if isinstance(seed, Tensor):
        if seed.dim() or seed.dtype not in _INTEGERS or (seed.is_meta and device.type != "meta"):
            found = f"{seed.dtype} of shape {tuple(seed.shape)} on {seed.device}"
            raise ArgumentError(f"seed must be one integer, got {found}")
        return seed.to(device=device, dtype=torch.int64)
    return torch.full((), _signed(_integer(seed)), dtype=torch.int64, device=device)


def _integer(seed: Any) -> int:
    if type(seed) is int:
        return seed
    if not isinstance(seed, bool):
        with contextlib.suppress(TypeError):
            return operator.index(seed)
    raise ArgumentError(f"seed must be an integer or an integer tensor of shape (), got {seed!r}")


def draw_seed(device: torch.device) -> Tensor:
    """Draw an int64 seed of shape () from torch's generator of ``device``, mixed with the distributed rank.

    The seed stays on the device (no synchronization). The rank is mixed in because launchers commonly seed every rank
    alike, and ranks must not drop the same keys.
    """
    seed = torch.randint(-(2**63), 2**63 - 1, (), dtype=torch.int64, device=device)
    rank = _distributed_rank()
    return seed + _signed(rank * _RANK_STEP) if rank else seed


def _signed(number: int) -> int:
    """Return ``number`` modulo 2**64 as a signed 64-bit integer."""
    return (number + 2**63) % 2**64 - 2**63


def _distributed_rank() -> int:
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0
