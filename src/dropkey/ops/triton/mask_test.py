"""A mask that a kernel writes to memory is trusted once it has been seen to be that of the pattern, on this GPU."""

import torch
from torch import Tensor

from dropkey.ops.triton.tokens import fill_kept_tokens
from dropkey.ops.triton.windows import fill_element_bits, fill_window_bits
from dropkey.patterns import Block, Cross, Element, Geometry, Token

__all__ = ["IN_MEMORY", "unpacked", "written_mask"]

IN_MEMORY = ("token", "block", "cross", "bits")  # patterns whose mask lies in memory
_WINDOW = 3


def written_mask(
    pattern: str, num_heads: int, num_queries: int, num_keys: int, ratio: Tensor, seed: Tensor
) -> tuple[Tensor, bool]:
    """Let the kernels write the mask of one image.

    Returns:
        What the attention kernels read, and whether it is what the pattern says.
    """
    rows, cols = next((n, num_keys // n) for n in range(17, 0, -1) if num_keys % n == 0)
    geometry = Geometry(1, num_heads, num_queries, num_keys, (rows, cols))
    if pattern == "token":
        kept = torch.empty((1, num_keys), dtype=torch.bool, device=seed.device)
        fill_kept_tokens(kept, ratio, seed, num_heads)
        return kept, torch.equal(kept, Token().keep(seed, ratio, geometry).flatten(1))
    kept = torch.empty((1, num_heads, num_queries, (num_keys + 7) // 8), dtype=torch.uint8, device=seed.device)
    threshold = ratio if ratio.is_cuda else round(float(ratio) * 65536)
    if pattern == "bits":
        fill_element_bits(kept, threshold, seed, num_keys)
        return kept, torch.equal(unpacked(kept, num_keys), Element().keep(seed, ratio, geometry))
    window = Cross(_WINDOW) if pattern == "cross" else Block(_WINDOW)
    of_seeds = int(window.seed_threshold(ratio, (rows, cols)))
    is_cross = pattern == "cross"
    fill_window_bits(kept, threshold, of_seeds, seed, num_keys, (rows, cols), _WINDOW, window.stream, is_cross)
    return kept, torch.equal(unpacked(kept, num_keys), window.keep(seed, ratio, geometry))


def unpacked(bits: Tensor, num_keys: int) -> Tensor:
    """Return packed bits (B, H, Nq, ceil(Nk / 8)) as bool (B, H, Nq, Nk)."""
    each = bits[..., None] >> torch.arange(8, dtype=torch.uint8, device=bits.device)
    return (each & 1).bool().flatten(-2)[..., :num_keys]
