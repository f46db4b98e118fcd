"""The proof that DropKey acts at a site: the right keys, the right share, and what attention gives without them."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dropkey.adapters.logits import per_map
from dropkey.adapters.record import Record
from dropkey.adapters.slots.drop_check import DropCheck, check_share
from dropkey.adapters.slots.drop_slot import DropSlot
from dropkey.errors import SiteError
from dropkey.ops.attention import keep_mask
from dropkey.ops.call import Draw
from dropkey.ops.reference import logits_of, weights
from dropkey.patterns import Geometry

__all__ = ["check"]


def check(name: str, slot: DropSlot, records: Sequence[Record]) -> DropCheck:
    """Check every attention call of one forward pass against the reference with its exported keep mask."""
    if not slot.is_positive:
        return DropCheck(name, 0.0, 0.0, math.nan, len(records))
    _check_independence(name, records)
    checks = [_check_record(name, slot, record) for record in records]
    return replace(max(checks, key=lambda check: check.max_error), num_calls=len(records))


def _check_independence(name: str, records: Sequence[Record]) -> None:
    """Raise if two calls of one pass have lost the same keys, though they are not maps of the same heads."""
    if any(record.shares_mask for record in records):
        return
    seeds = [int(record.call.draw.seed) for record in records if record.call.draw is not None]
    if len(set(seeds)) < len(seeds):
        raise SiteError(f"{name} calls attention {len(seeds)} times a pass, and some of the calls draw the same keys")


def _check_record(name: str, slot: DropSlot, record: Record) -> DropCheck:
    draw = record.call.draw
    if draw is None:
        raise SiteError(f"{name} drops nothing in training mode")
    geometry = _geometry(record, draw)
    drawn = _exported_mask(record, draw, geometry)
    keep, can_go = draw.spared(drawn), _candidates(name, record, slot)
    share, error = 1 - drawn.expand(can_go.shape)[can_go].double().mean().item(), _difference(name, record, keep)
    _check_whole_module(name, record)
    tolerance = draw.pattern.share_tolerance(slot.drop_ratio, geometry) / can_go.double().mean().item() ** 0.5
    check_share(name, share, slot.drop_ratio, tolerance)
    return DropCheck(name, slot.drop_ratio, share, error, 1)


def _candidates(name: str, record: Record, slot: DropSlot) -> Tensor:
    """Return which keys could be dropped, after a look whether they are those with the largest logits."""
    draw, call = record.call.draw, record.call
    share, candidates = slot.regularizer.top_share, None if draw is None else draw.candidates  # type: ignore[attr-defined]
    if candidates is None:
        if share < 1:
            raise SiteError(f"{name} may drop any key, not only the {share:.4g} of them with the largest logits")
        return torch.ones(call.mask_shape, dtype=torch.bool, device=call.query.device)
    logits, allowed = logits_of(call).double(), call.allowed()
    logits = logits if allowed is None else logits.where(allowed, -torch.inf)
    lowest, highest = logits.where(candidates, torch.inf).amin(-1), logits.where(~candidates, -torch.inf).amax(-1)
    slack = 16 * torch.finfo(torch.float32).eps * logits.where(logits.isfinite(), 0).abs().amax()
    if (candidates.sum(-1) != max(1, round(share * candidates.shape[-1]))).any() or (lowest < highest - slack).any():
        raise SiteError(f"{name} may drop other keys than the {share:.4g} of them with the largest logits")
    return candidates


def _geometry(record: Record, draw: Draw) -> Geometry:
    """The shape that a record's mask was drawn for: maps of the same heads share one."""
    batch, num_maps, num_queries, num_keys = record.call.mask_shape
    num_heads = num_maps // record.maps_per_mask
    return Geometry(batch, num_heads, num_queries, num_keys, draw.grid_size, draw.num_prefix_tokens)


def _exported_mask(record: Record, draw: Draw, geometry: Geometry) -> Tensor:
    """The mask of the record's draw as ``keep_mask`` gives it, repeated for maps that share it."""
    keep = keep_mask(
        *geometry[:4],
        drop_ratio=float(draw.drop_ratio),
        pattern=draw.pattern,
        seed=draw.seed,
        grid_size=geometry.grid_size,
        num_prefix_tokens=geometry.num_prefix_tokens,
        device=draw.seed.device,
    )
    return per_map(keep, record.maps_per_mask)


def _difference(name: str, record: Record, keep: Tensor) -> float:
    """Compare a site's output with the reference; the bound is loose for rounding and tight for any real mistake."""
    call = record.call.expanded()
    attn = weights(call, keep)
    expected = attn @ call.value.to(attn.dtype)
    error = (record.out.to(attn.dtype) - expected).abs().max().item()
    bound = 16 * torch.finfo(record.out.dtype).eps * max(1.0, expected.abs().max().item()) * call.query.shape[-1] ** 0.5
    if not error <= bound:
        raise SiteError(f"{name} differs from the reference with its own mask by {error:.3g}, more than {bound:.3g}")
    return error


def _check_whole_module(name: str, record: Record) -> None:
    """Raise if a module whose dropped keys were never computed returns something else than with its keys masked."""
    if record.module_out is None or record.module_masked is None:
        return
    out, masked = record.module_out, record.module_masked
    error = (out.double() - masked.double()).abs().max().item()
    size = max(1.0, masked.abs().max().item())
    bound = 64 * torch.finfo(out.dtype).eps * size * record.call.query.shape[-1] ** 0.5
    if not error <= bound:
        raise SiteError(
            f"{name} returns something else when its keys are left out than when they are masked, by {error:.3g}: "
            "hooks, weights or a forward in it act there alone"
        )
