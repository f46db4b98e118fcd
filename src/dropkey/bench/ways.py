"""The ways to compute attention that are compared: all differentiable functions of (query, key, value, drop_ratio)."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import dropout, scaled_dot_product_attention

from dropkey.errors import ArgumentError, BackendError, did_you_mean
from dropkey.ops.attention import attention
from dropkey.ops.call import AttentionCall
from dropkey.ops.mixed_attention import attend_mixed, refuses
from dropkey.ops.reattention import HeadMixing

__all__ = ["BASELINE", "FUSED_RE_ATTENTION", "Way", "known_ways", "way"]

Way = Callable[[Tensor, Tensor, Tensor, float], Tensor]

BASELINE = "sdpa without dropout"
FUSED_RE_ATTENTION = "Re-attention, fused"


def two_lines(query: Tensor, key: Tensor, value: Tensor, drop_ratio: float) -> Tensor:
    """The paper's listing: a Bernoulli mask as large as the logits, a large negative number where it is 1."""
    attn = query @ key.mT * query.shape[-1] ** -0.5
    dropped = torch.bernoulli(torch.full_like(attn, drop_ratio))
    out: Tensor = (attn + dropped * -1e12).softmax(-1) @ value
    return out


def _plain(query: Tensor, key: Tensor, value: Tensor, drop_ratio: float) -> Tensor:
    return scaled_dot_product_attention(query, key, value)


def _sdpa_with_dropout(query: Tensor, key: Tensor, value: Tensor, drop_ratio: float) -> Tensor:
    return scaled_dot_product_attention(query, key, value, dropout_p=drop_ratio)


def _unfused_dropout(query: Tensor, key: Tensor, value: Tensor, drop_ratio: float) -> Tensor:
    attn = (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1)
    return dropout(attn, drop_ratio) @ value


def _re_attention(query: Tensor, key: Tensor, value: Tensor, drop_ratio: float) -> Tensor:
    """DeepViT's own form in training; nothing is dropped."""
    attn = (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1)
    out: Tensor = _mixing(query.shape[1], query.device, query.dtype)(attn) @ value
    return out


def _fused_re_attention(query: Tensor, key: Tensor, value: Tensor, drop_ratio: float) -> Tensor:
    """The same in one call that stores no map, where the native kernel has it."""
    call = AttentionCall(query, key, value, None, False, query.shape[-1] ** -0.5, None)
    mixing = _mixing(query.shape[1], query.device, torch.promote_types(query.dtype, torch.float32))
    reason = refuses(call, mixing)
    if reason is not None:
        raise BackendError(f"Re-attention cannot be fused here: {reason}")
    return attend_mixed(call, mixing)


@functools.cache
def _mixing(num_heads: int, device: torch.device, dtype: torch.dtype) -> HeadMixing:
    return HeadMixing(num_heads, device=device, dtype=dtype)


def _dropkey(backend: str, pattern: str) -> Way:
    def run(query: Tensor, key: Tensor, value: Tensor, drop_ratio: float) -> Tensor:
        return attention(query, key, value, drop_ratio=drop_ratio, pattern=pattern, backend=backend)

    return run


WAYS: dict[str, Way] = {
    BASELINE: _plain,
    "sdpa with dropout": _sdpa_with_dropout,
    "softmax, then dropout": _unfused_dropout,
    "the paper's two lines": two_lines,
    "the paper's two lines, compiled": two_lines,
    "Re-attention, batch norm": _re_attention,
    FUSED_RE_ATTENTION: _fused_re_attention,
}


def known_ways(backends: list[str], pattern: str) -> list[str]:
    """Return the names of all ways: the baselines, and dropkey on each backend."""
    has_kernel = "cpu" in backends and not torch.cuda.is_available()
    names = [name for name in WAYS if has_kernel or name != FUSED_RE_ATTENTION]
    return [*names, *(f"dropkey {pattern} on {backend}" for backend in backends)]


def way(name: str) -> Way:
    """Return a way by its name; raise an ArgumentError for an unknown one."""
    if name.startswith("dropkey "):
        _, pattern, _, backend = name.split()
        return _dropkey(backend, pattern)
    if name not in WAYS:
        raise ArgumentError(f"nothing to measure is called {name!r}{did_you_mean(name, WAYS)}")
    return torch.compile(WAYS[name]) if name.endswith(", compiled") else WAYS[name]
