"""Random numbers that depend on where training stands and on nothing else.

Order, augmentation and each training step are seeded by (seed, epoch, position), never by what was drawn before. So a
run that was interrupted anywhere continues exactly as if it had not been, and no random state needs to be saved.
"""

import hashlib
import random

import numpy as np
import torch

__all__ = ["seed_all", "seed_cpu", "seed_of"]


def seed_of(*coordinates: int | str) -> int:
    """Return a 63-bit seed for a place, the same on every machine."""
    digest = hashlib.blake2b(repr(coordinates).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_cpu(*coordinates: int | str) -> None:
    """Seed the generators of Python, NumPy and torch's CPU for a place: cheap enough for every image."""
    seed = seed_of(*coordinates)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # timm's augmentations draw from NumPy's global generator
    # torch.manual_seed would format three stack traces a call, for devices that may be started later.
    torch.default_generator.manual_seed(seed)


def seed_all(*coordinates: int | str) -> None:
    """Seed as ``seed_cpu`` does, and every accelerator."""
    seed_cpu(*coordinates)
    torch.manual_seed(seed_of(*coordinates))
