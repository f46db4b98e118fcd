"""Which keys "token" keeps: those of the highest random ranks, as many as the ratio says."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from dropkey.ops.triton.philox import philox4x32

__all__ = ["fill_kept_tokens"]

TOKEN_STREAM = tl.constexpr(2)
_KEYS, _OTHERS = 32, 128  # a tile


@triton.jit
def _ranks(start, seed, head, num_keys, BLOCK: tl.constexpr):
    """Draw the 32-bit ranks of keys ``start`` to ``start + BLOCK`` as int64; beyond the last key they are -1."""
    none = tl.full((1,), 0, tl.uint32)
    calls = start // 4 + tl.arange(0, BLOCK // 4)
    w0, w1, w2, w3 = philox4x32(calls, none, head, tl.full((), TOKEN_STREAM, tl.uint32), seed)
    words = tl.join(tl.join(w0, w2), tl.join(w1, w3)).reshape(BLOCK)
    return tl.where(start + tl.arange(0, BLOCK) < num_keys, words.to(tl.int64), -1)


@triton.jit(do_not_specialize=["num_kept", "num_heads", "num_keys"])
def token_kernel(kept, seed, num_kept, num_heads, num_keys, BLOCK: tl.constexpr, OTHERS: tl.constexpr):
    """Write a byte a key: whether fewer than ``num_kept`` keys are before it, by rank and, of equal ranks, by place.

    ``num_kept`` is a number, or a pointer to it as float64.
    """
    num_tiles = tl.cdiv(num_keys, BLOCK)
    batch, start = tl.program_id(0) // num_tiles, tl.program_id(0) % num_tiles * BLOCK
    if num_kept.dtype.is_ptr():
        num_kept = tl.load(num_kept).to(tl.int32)
    key_seed, head = tl.load(seed), (batch * num_heads).to(tl.uint32)
    key = (start + tl.arange(0, BLOCK))[:, None]
    rank = _ranks(start, key_seed, head, num_keys, BLOCK)[:, None]
    num_before = tl.zeros((BLOCK,), tl.int32)
    for other_start in range(0, num_keys, OTHERS):
        other = (other_start + tl.arange(0, OTHERS))[None, :]
        other_rank = _ranks(other_start, key_seed, head, num_keys, OTHERS)[None, :]
        is_before = (other_rank > rank) | ((other_rank == rank) & (other < key))
        num_before += tl.sum(is_before.to(tl.int32), 1)
    places = start + tl.arange(0, BLOCK)
    tl.store(kept + batch.to(tl.int64) * num_keys + places, num_before < num_kept, mask=places < num_keys)


def fill_kept_tokens(kept: Tensor, drop_ratio: Tensor, seed: Tensor, num_heads: int) -> None:
    """Fill bool ``kept`` (B, Nk); ``drop_ratio`` is float64, on the CPU or on the GPU."""
    batch, num_keys = kept.shape
    if kept.numel() == 0:
        return
    num_kept = torch.round((1 - drop_ratio) * num_keys).clamp(min=1)
    programs = batch * triton.cdiv(num_keys, _KEYS)
    with torch.cuda.device_of(kept):  # type: ignore[no-untyped-call]
        token_kernel[(programs,)](
            kept.view(torch.uint8),
            seed,
            num_kept if num_kept.is_cuda else int(num_kept),
            num_heads,
            num_keys,
            _KEYS,
            _OTHERS,
        )
