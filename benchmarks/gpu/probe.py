"""A small kernel that says whether Triton works here."""

import os

import torch
import triton
import triton.language as tl

__all__ = ["IS_INTERPRETING", "probe"]

IS_INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"


@triton.jit(do_not_specialize=["count"])
def probe_kernel(source, target, count, SIZE: tl.constexpr):  # noqa: N803
    """Write the product of a matrix with itself, row by row of a loop."""
    places = tl.arange(0, SIZE)
    at = places[:, None] * SIZE + places[None, :]
    total = tl.zeros((SIZE, SIZE), tl.float32)
    for start in range(0, count, SIZE):
        tile = tl.load(source + at, mask=(places < count)[:, None], other=0.0)
        total += tl.dot(tile, tile) * tl.where(start >= 0, 1.0, 0.0)
    tl.store(target + at, total)


def probe() -> None:
    """Raise where the kernel fails or is wrong."""
    place = "cuda" if torch.cuda.is_available() else "cpu"
    source = torch.eye(16, device=place)
    target = torch.full_like(source, float("nan"))
    probe_kernel[(1,)](source, target, 16, 16)
    if not torch.equal(source, target):
        raise RuntimeError("a product of two identities is not the identity")
