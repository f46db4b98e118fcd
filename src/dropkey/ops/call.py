"""One attention call, as every backend receives it: checked, with nothing left to decide."""

from typing import NamedTuple

import torch
from torch import Tensor

from dropkey.errors import ArgumentError
from dropkey.patterns import Geometry, Pattern
from dropkey.philox import draw_seed, seed_tensor
from dropkey.schedules import check_drop_ratio

__all__ = ["AttentionCall", "Draw"]


class Draw(NamedTuple):
    """Which keys are dropped: all that a keep mask depends on, besides the shape of the call."""

    pattern: Pattern
    drop_ratio: Tensor  # float64 (), in (0, 1), on the CPU: a tensor, so that a compiled graph can change it
    seed: Tensor  # int64 (), on the query's device
    grid_size: tuple[int, int] | None = None
    num_prefix_tokens: int = 0

    @classmethod
    def of(
        cls,
        pattern: Pattern,
        drop_ratio: float | Tensor,
        seed: int | Tensor | None,
        device: torch.device,
        grid_size: tuple[int, int] | None = None,
        num_prefix_tokens: int = 0,
    ) -> "Draw":
        """Build a draw from what users pass: a number or a tensor as ratio, and an optional seed."""
        if not isinstance(drop_ratio, Tensor):
            drop_ratio = torch.tensor(drop_ratio, dtype=torch.float64, device="cpu")
        tensor = draw_seed(device) if seed is None else seed_tensor(seed, device)
        return cls(pattern, drop_ratio, tensor, grid_size, num_prefix_tokens)

    def keep(self, batch: int, num_heads: int, num_queries: int, num_keys: int) -> Tensor:
        """Return the keep mask, bool, broadcastable to (B, H, Nq, Nk)."""
        geometry = Geometry(batch, num_heads, num_queries, num_keys, self.grid_size, self.num_prefix_tokens)
        self.pattern.check(geometry)
        return self.pattern.keep(self.seed, self.drop_ratio, geometry)


class AttentionCall(NamedTuple):
    """Arguments of one attention call.

    Shapes: query (B, H, Nq, D), key (B, Hkv, Nk, D), value (B, Hkv, Nk, Dv), with H a multiple of Hkv. ``attn_bias`` is
    bool (True = may be seen) or floating (added to the logits), broadcastable to (B, H, Nq, Nk). ``draw`` is None when
    nothing is dropped.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    attn_bias: Tensor | None
    is_causal: bool
    scale: float
    draw: Draw | None

    @property
    def mask_shape(self) -> tuple[int, int, int, int]:
        """(B, H, Nq, Nk)."""
        batch, num_heads, num_queries, _ = self.query.shape
        return batch, num_heads, num_queries, self.key.shape[2]

    def keep(self) -> Tensor | None:
        """Return the keep mask of the draw, broadcastable to ``mask_shape``, or None if nothing is dropped."""
        return None if self.draw is None else self.draw.keep(*self.mask_shape)

    def allowed(self) -> Tensor | None:
        """Return which keys are not forbidden, bool, broadcastable to ``mask_shape``; None if all are allowed.

        Forbidden means False in a bool mask, a bias at or below the smallest number of its type, or a key after the
        query under ``is_causal`` (aligned at the top left, as in torch).
        """
        allowed = self.attn_bias
        if allowed is not None and allowed.dtype != torch.bool:
            allowed = ~(allowed <= torch.finfo(allowed.dtype).min)
        if self.is_causal:
            num_queries, num_keys = self.mask_shape[2:]
            causal = torch.ones((num_queries, num_keys), dtype=torch.bool, device=self.query.device).tril()
            allowed = causal if allowed is None else allowed & causal
        return allowed

    def expanded(self) -> "AttentionCall":
        """Return the call with key and value repeated to as many heads as the query has."""
        repeats = self.query.shape[1] // self.key.shape[1]
        if repeats == 1:
            return self
        key, value = (t.repeat_interleave(repeats, dim=1) for t in (self.key, self.value))
        return self._replace(key=key, value=value)


def check_tensors(query: Tensor, key: Tensor, value: Tensor, attn_bias: Tensor | None) -> None:
    """Raise an ArgumentError that names the tensor which does not fit the others."""
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if tensor.dim() != 4:
            raise ArgumentError(f"{name} must be (batch, heads, tokens, head_dim), got shape {tuple(tensor.shape)}")
        if not tensor.is_floating_point() or tensor.dtype != query.dtype or tensor.device != query.device:
            raise ArgumentError(
                f"{name} is {tensor.dtype} on {tensor.device}, query {query.dtype} on {query.device}: "
                "query, key and value must be of one floating type on one device"
            )
    if key.shape[:3] != value.shape[:3] or key.shape[0] != query.shape[0] or key.shape[3] != query.shape[3]:
        raise ArgumentError(
            f"query {tuple(query.shape)}, key {tuple(key.shape)} and value {tuple(value.shape)} do not fit: "
            "batches must agree, query and key in head_dim, key and value in heads and tokens"
        )
    if query.shape[1] % key.shape[1]:
        raise ArgumentError(f"{query.shape[1]} query heads are no multiple of {key.shape[1]} key heads")
    if attn_bias is not None:
        _check_bias(attn_bias, (*query.shape[:3], key.shape[2]))


def _check_bias(attn_bias: Tensor, mask_shape: tuple[int, ...]) -> None:
    if attn_bias.dtype != torch.bool and not attn_bias.is_floating_point():
        raise ArgumentError(f"attn_bias must be bool (True = may be seen) or floating, got {attn_bias.dtype}")
    shape = (1,) * (4 - attn_bias.dim()) + tuple(attn_bias.shape)
    if len(shape) != 4 or any(have not in (1, want) for have, want in zip(shape, mask_shape, strict=True)):
        raise ArgumentError(
            f"attn_bias of shape {tuple(attn_bias.shape)} does not broadcast to (B, H, Nq, Nk) = {mask_shape}"
        )


def is_dropping(drop_ratio: float | Tensor) -> bool:
    """Say whether anything is dropped; a tensor ratio is taken to be in (0, 1) and never read."""
    return True if isinstance(drop_ratio, Tensor) else check_drop_ratio(drop_ratio) > 0
