"""One attention call, as every backend receives it: checked (see ``operands.py``), with nothing left to decide."""

from typing import NamedTuple

import torch
from torch import Tensor

from dropkey.arguments import check_count, check_grid_size
from dropkey.errors import ArgumentError
from dropkey.ops.ordinary import is_plain
from dropkey.ops.transforms import active_transform, check_randomness
from dropkey.patterns import Geometry, Pattern
from dropkey.philox import draw_seed, seed_tensor
from dropkey.schedules import check_base_ratio

__all__ = ["FORBIDDEN", "AttentionCall", "Draw", "is_dropping"]

# A bias from here down forbids a key: exp(-5000) is 0 in every format, and nobody who adds less means a logit. Half
# precision rounds -1e4 and the smallest numbers of the formats, or adds a position to them: all lie far below.
FORBIDDEN = -5000.0


class Draw(NamedTuple):
    """Which keys are dropped: all that a keep mask depends on, besides the shape of the call."""

    pattern: Pattern
    drop_ratio: Tensor  # float64 (), in (0, 1), on the CPU or the seed's device: a compiled graph can change it
    seed: Tensor  # int64 (), on the query's device
    grid_size: tuple[int, int] | None = None
    num_prefix_tokens: int = 0
    seed_threshold: Tensor | None = None  # int64 (), where the pattern has one and it was found before the call
    candidates: Tensor | None = None  # bool (B, H, Nq, Nk): others are kept whatever is drawn; None for all keys

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
        """Build a draw from what users pass: a number or a tensor as ratio, and an optional seed.

        A tensor is copied: the ratio belongs to the call, whatever becomes of the tensor before the backward pass.

        Raises:
            ArgumentError: a tensor that is no single number, a seed that is no integer, no patch grid, or torch.vmap
                without a word on randomness.
        """
        if not isinstance(drop_ratio, Tensor):
            drop_ratio = _number(drop_ratio, device, pattern)
        elif drop_ratio.dim() or not drop_ratio.is_floating_point() or (drop_ratio.is_meta and device.type != "meta"):
            found = f"{drop_ratio.dtype} of shape {tuple(drop_ratio.shape)} on {drop_ratio.device}"
            raise ArgumentError(f"drop_ratio must be one floating number, got {found}")
        else:
            drop_ratio = _read(drop_ratio.detach().to(torch.float64, copy=True))
        grid_size, num_prefix_tokens = check_grid_size(grid_size), check_count("num_prefix_tokens", num_prefix_tokens)
        if seed is None:
            check_randomness()
        tensor = draw_seed(device) if seed is None else seed_tensor(seed, device)
        return cls(pattern, drop_ratio, tensor, grid_size, num_prefix_tokens)

    def keep(self, batch: int, num_heads: int, num_queries: int, num_keys: int) -> Tensor:
        """Return the keep mask, bool, broadcastable to (B, H, Nq, Nk)."""
        geometry = Geometry(batch, num_heads, num_queries, num_keys, self.grid_size, self.num_prefix_tokens)
        self.pattern.check(geometry)
        if self.seed_threshold is not None:
            return self.spared(self.pattern.keep_below(self.seed_threshold, self.seed, self.drop_ratio, geometry))
        return self.spared(self.pattern.keep(self.seed, self.drop_ratio, geometry))

    def spared(self, keep: Tensor) -> Tensor:
        """Return a mask that the pattern has drawn, with all keys kept that are no candidates."""
        return keep if self.candidates is None else keep | ~self.candidates


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

        Forbidden means False in a bool mask, a bias at or below FORBIDDEN, or a key after the query under
        ``is_causal`` (aligned at the top left, as in torch).
        """
        allowed = self.attn_bias
        if allowed is not None and allowed.dtype != torch.bool:
            # In float32 at least: bfloat16 would round the bound itself. NaN is not forbidden, so that it shows.
            allowed = ~(allowed.to(torch.promote_types(allowed.dtype, torch.float32)) <= FORBIDDEN)
        if self.is_causal:
            num_queries, num_keys = self.mask_shape[2:]
            causal = torch.ones((num_queries, num_keys), dtype=torch.bool, device=self.query.device).tril()
            allowed = causal if allowed is None else allowed & causal
        return allowed

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to compute but zeros."""
        return not (self.query.numel() and self.value.numel()) and (0 in self.mask_shape or self.value.shape[3] == 0)

    def expanded(self) -> "AttentionCall":
        """Return the call with key and value repeated to as many heads as the query has."""
        repeats = self.query.shape[1] // self.key.shape[1]
        if repeats == 1:
            return self
        key, value = (t.repeat_interleave(repeats, dim=1) for t in (self.key, self.value))
        return self._replace(key=key, value=value)


def _number(drop_ratio: float, device: torch.device, pattern: Pattern) -> Tensor:
    """Return a ratio as float64 (), on the CPU, where reading it waits for nothing.

    In a graph that is compiled for a GPU it is made there: a lone number on the CPU would cost the graph a C++ compiler
    and its capture as a CUDA graph. Patterns with a threshold of seeds read it on the CPU.
    """
    if torch.compiler.is_compiling() and device.type == "cuda" and not pattern.has_seed_threshold:
        return torch.full((), drop_ratio, dtype=torch.float64, device=device)
    return torch.tensor(drop_ratio, dtype=torch.float64, device="cpu")


def _read(drop_ratio: Tensor) -> Tensor:
    """Return a ratio that was given as a tensor, checked where reading it waits for nothing and ends no graph."""
    in_hand = drop_ratio.device.type == "cpu" and is_plain(drop_ratio) and not torch.compiler.is_compiling()
    if in_hand and active_transform() is None and not 0 <= float(drop_ratio) < 1:
        raise ArgumentError(f"drop_ratio must be in [0, 1), got {drop_ratio}: it is the share of keys dropped")
    return drop_ratio


def is_dropping(drop_ratio: float | Tensor) -> bool:
    """Say whether anything is dropped; a tensor ratio is taken to be in (0, 1) and never read."""
    return True if isinstance(drop_ratio, Tensor) else check_base_ratio(drop_ratio) > 0
