"""What is timed against each other: our kernel by design, torch's attention by backend, FlexAttention, two lines."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.gpu.kernels import call_of, design, need_gpu
from benchmarks.gpu.plans import FLEX
from benchmarks.gpu.record import NotHere

__all__ = ["contenders"]

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
RATIO, SEED = 0.3, 11
LARGEST_MAP = 12e9  # bytes of attention weights that the paper's lines may take


def ours(tensors: list[Tensor], name: str, pattern: str = "element") -> Attend:
    """Return our kernel with one way to draw; the seed is on the device already, as a user's implicit one is."""
    backend = design(name)
    seed = torch.full((), SEED, dtype=torch.int64, device=tensors[0].device)
    ratio = torch.tensor(RATIO, dtype=torch.float64)
    return lambda q, k, v: backend.attend(call_of([q, k, v], ratio, pattern, seed))


def torchs(tensors: list[Tensor], backend: SDPBackend, **options: object) -> Attend:
    """Return torch's attention on one named backend; torch raises where it cannot."""
    need_gpu()

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(query, key, value, **options)

    return attend


def any_torchs(tensors: list[Tensor]) -> Attend:
    """Return torch's attention as torch chooses it."""
    return scaled_dot_product_attention


def masked(tensors: list[Tensor]) -> Attend:
    """Return torch's memory-efficient attention with a bool mask that was drawn beforehand."""
    need_gpu()
    batch, heads, tokens, _ = tensors[0].shape
    if batch * heads * tokens * tokens > LARGEST_MAP:
        raise NotHere("the mask would take too much memory")
    mask = torch.rand(batch, heads, tokens, (tokens + 7) // 8 * 8, device="cuda") >= RATIO
    return torchs(tensors, SDPBackend.EFFICIENT_ATTENTION, attn_mask=mask[..., :tokens])


def two_lines(tensors: list[Tensor]) -> Attend:
    """Return the paper's listing: a mask of ones times the ratio, drawn and added to the logits."""
    batch, heads, tokens, dim = tensors[0].shape
    if batch * heads * tokens * tokens * 14 > LARGEST_MAP * 2:
        raise NotHere("the attention weights would take too much memory")

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        attn = query @ key.mT * dim**-0.5
        attn = attn + torch.bernoulli(torch.full_like(attn, RATIO)) * -1e12
        return attn.softmax(-1) @ value

    return attend


def flex(tensors: list[Tensor]) -> Attend:
    """Return FlexAttention, compiled, with a mask hashed from the place of a pair (it has no random numbers)."""
    need_gpu()
    from torch.nn.attention.flex_attention import flex_attention

    heads, tokens = tensors[0].shape[1:3]

    def drop(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        x = ((b * heads + h) * tokens + q) * tokens + k
        x = (x ^ (x >> 16)) * 0x45D9F3B
        x = (x ^ (x >> 16)) * 0x45D9F3B
        return torch.where(((x >> 8) & 0xFFFF) >= round(RATIO * 65536), score, -1e30)

    compiled = torch.compile(flex_attention, dynamic=False)
    return lambda q, k, v: compiled(q, k, v, score_mod=drop)


def contenders() -> dict[str, Callable[[list[Tensor]], Attend]]:
    """Return what builds each contender from query, key and value; the most important first."""
    return {
        "dropkey inline": functools.partial(ours, name="inline"),
        "dropkey off": functools.partial(ours, name="off"),
        "dropkey stored": functools.partial(ours, name="stored"),
        "dropkey ahead": functools.partial(ours, name="ahead"),
        "sdpa flash": functools.partial(torchs, backend=SDPBackend.FLASH_ATTENTION),
        "sdpa cudnn": functools.partial(torchs, backend=SDPBackend.CUDNN_ATTENTION),
        "sdpa by torch": any_torchs,
        "dropkey token": functools.partial(ours, name="", pattern="token"),
        "dropkey column": functools.partial(ours, name="", pattern="column"),
        "sdpa flash, dropout 0.3": functools.partial(torchs, backend=SDPBackend.FLASH_ATTENTION, dropout_p=RATIO),
        "sdpa cudnn, dropout 0.3": functools.partial(torchs, backend=SDPBackend.CUDNN_ATTENTION, dropout_p=RATIO),
        "sdpa memory-efficient, mask drawn before": masked,
        "paper's two lines": two_lines,
        FLEX: flex,
    }
