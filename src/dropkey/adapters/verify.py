"""The proof that a regularizer acts: every site against the reference, on the user's own input."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dropkey.adapters.grid_of_pass import check_grid, grids_of_pass
from dropkey.adapters.listeners import recording
from dropkey.adapters.logits import per_map
from dropkey.adapters.names import shown
from dropkey.adapters.record import Record
from dropkey.adapters.site import Site
from dropkey.adapters.slot import Slot
from dropkey.adapters.table import text_table
from dropkey.errors import SiteError
from dropkey.ops.attention import keep_mask
from dropkey.ops.call import AttentionCall, Draw
from dropkey.ops.dropout import attend_with_dropout, drop_weights
from dropkey.ops.reference import weights
from dropkey.patterns import Element, Geometry
from dropkey.regularizers import AttentionDropout

__all__ = ["SiteCheck", "Verification", "verify"]

_CHANCE = 1e-9


class SiteCheck(NamedTuple):
    """What was seen at one site."""

    name: str
    drop_ratio: float
    dropped_share: float
    max_error: float  # largest absolute difference from the reference; NaN where nothing can be compared
    num_calls: int


class Verification(NamedTuple):
    """What ``Handle.verify`` has proved: ``print`` it for a table."""

    checks: list[SiteCheck]

    def __str__(self) -> str:
        header = ["site", "drop ratio", "dropped", "calls", "largest error", "verdict"]
        body = [
            [
                shown(c.name),
                f"{c.drop_ratio:.4g}",
                f"{c.dropped_share:.4f}",
                str(c.num_calls),
                _error_text(c),
                _verdict(c),
            ]
            for c in self.checks
        ]
        return text_table([header, *body]) + "\nIn evaluation mode the model is untouched, bit for bit."


def verify(model: nn.Module, rows: Sequence[tuple[nn.Module, Site, Slot]], *inputs: Any, **kwargs: Any) -> Verification:
    """See ``Handle.verify``."""
    for _, _, slot in rows:
        if not slot.enabled:
            raise SiteError(f"{slot.regularizer} is disabled, so there is nothing to verify: enable() it first")
    with restored(model), torch.no_grad():
        _check_evaluation(model, rows, *inputs, **kwargs)
        model.train()
        with recording([module for module, _, _ in rows]) as records, grids_of_pass(model) as grids:
            model(*inputs, **kwargs)
        for (module, site, _), heard in zip(rows, records, strict=True):
            check_grid(site, heard, grids.get(module))
        with _full_precision(model):
            return Verification(
                [_check_site(site, slot, heard) for (_, site, slot), heard in zip(rows, records, strict=True)]
            )


def _check_evaluation(
    model: nn.Module, rows: Sequence[tuple[nn.Module, Site, Slot]], *inputs: Any, **kwargs: Any
) -> None:
    model.eval()
    with recording([module for module, _, _ in rows]) as records, _restored_random_state(model):
        with_slots = _flat(model(*inputs, **kwargs))
    for (_, site, _), heard in zip(rows, records, strict=True):
        if any(record.drops for record in heard):
            raise SiteError(f"{site.name} acts in evaluation mode too")
    for _, _, slot in rows:
        slot.enabled = False
    try:
        with _restored_random_state(model):  # some models draw in evaluation too: masked autoencoders
            without = _flat(model(*inputs, **kwargs))
    finally:
        for _, _, slot in rows:
            slot.enabled = True
    same = len(with_slots) == len(without) and all(map(_equal, with_slots, without))
    if not same:
        raise SiteError(
            f"in evaluation mode this {type(model).__name__} gives another output than without the regularizer"
        )


def _check_site(site: Site, slot: Slot, records: Sequence[Record]) -> SiteCheck:
    if not slot.is_positive:
        return SiteCheck(site.name, 0.0, 0.0, math.nan, len(records))
    if not records:
        raise SiteError(
            f"{site.name} was not reached in training mode: the model did not run it, or ran around it, "
            "or a forward that was set on it since dropkey.apply does not call its own"
        )
    _check_independence(site, records)
    checks = [_check_record(site, slot, record) for record in records]
    return max(checks, key=lambda check: check.max_error)._replace(num_calls=len(records))


def _check_independence(site: Site, records: Sequence[Record]) -> None:
    """Raise if two calls of one pass have lost the same keys, though they are not maps of the same heads."""
    if site.entry.one_mask:
        return
    seeds = [int(record.call.draw.seed) for record in records if record.call.draw is not None]
    if len(set(seeds)) < len(seeds):
        raise SiteError(
            f"{site.name} calls attention {len(seeds)} times a pass, and some of the calls draw the same keys"
        )


def _check_whole_module(site: Site, record: Record) -> None:
    """Raise if a module whose dropped keys were never computed returns something else than with its keys masked."""
    if record.module_out is None or record.module_masked is None:
        return
    out, masked = record.module_out, record.module_masked
    error = (out.double() - masked.double()).abs().max().item()
    size = max(1.0, masked.abs().max().item())
    bound = 64 * torch.finfo(out.dtype).eps * size * record.call.query.shape[-1] ** 0.5
    if not error <= bound:
        raise SiteError(
            f"{site.name} returns something else when its keys are left out than when they are masked, by {error:.3g}: "
            "hooks, weights or a forward in it act there alone"
        )


def _check_record(site: Site, slot: Slot, record: Record) -> SiteCheck:
    call = record.call
    if isinstance(slot.regularizer, AttentionDropout):
        _check_differs(site, slot, record)
        share, error = _share_of_dropped_weights(slot, call), math.nan
        bound = Element().share_tolerance(slot.drop_ratio, Geometry(*call.mask_shape))
    else:
        if call.draw is None:
            raise SiteError(f"{site.name} drops nothing in training mode")
        keep = _exported_mask(record)
        share, error = 1 - keep.double().mean().item(), _difference(site, record, keep)
        bound = call.draw.pattern.share_tolerance(slot.drop_ratio, _geometry(record, call.draw))
        _check_whole_module(site, record)
    if abs(share - slot.drop_ratio) > bound:
        raise SiteError(f"{site.name} drops {share:.4f} of its keys, not {slot.drop_ratio:.4f} +- {bound:.4f}")
    return SiteCheck(site.name, slot.drop_ratio, share, error, 1)


def _exported_mask(record: Record) -> Tensor:
    """The mask of the record's draw as ``keep_mask`` gives it, repeated for maps that share it."""
    draw = record.call.draw
    assert draw is not None
    geometry = _geometry(record, draw)
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


def _difference(site: Site, record: Record, keep: Tensor) -> float:
    """Compare a site's output with the reference; the bound is loose for rounding and tight for any real mistake."""
    call = record.call.expanded()
    attn = weights(call, keep)
    expected = attn @ call.value.to(attn.dtype)
    error = (record.out.to(attn.dtype) - expected).abs().max().item()
    bound = 16 * torch.finfo(record.out.dtype).eps * max(1.0, expected.abs().max().item()) * call.query.shape[-1] ** 0.5
    if not error <= bound:
        raise SiteError(
            f"{site.name} differs from the reference with its own mask by {error:.3g}, more than {bound:.3g}"
        )
    return error


def _check_differs(site: Site, slot: Slot, record: Record) -> None:
    """Raise if a site's output is what it would be with all weights kept; torch's own mask cannot be exported."""
    call = record.call.expanded()
    attn = weights(call, None)
    if (1 - slot.drop_ratio) ** int((attn > 0).sum()) > _CHANCE:
        return  # so few weights that all of them may have been kept
    value = call.value.to(attn.dtype)
    untouched = attn @ value
    visible = 1e-3 * untouched.abs().max()
    keep = _fresh_keep(slot, call)
    if keep is not None:  # renormalized weights of values that are all the same give the same: a DETR's first queries
        value = value - value.mean(-2, keepdim=True)
    shows = ((drop_weights(attn, slot.drop_ratio, keep) - attn) @ value).abs().max() > visible
    if shows and (record.out.to(attn.dtype) - untouched).abs().max() <= visible:
        raise SiteError(f"{site.name} drops no attention weights in training mode")


def _share_of_dropped_weights(slot: Slot, call: AttentionCall) -> float:
    """Measure dropout of weights by giving it the identity as values: its output is then the weights."""
    assert isinstance(slot.regularizer, AttentionDropout)
    num_keys = call.key.shape[2]
    eye = torch.eye(num_keys, dtype=call.query.dtype, device=call.query.device).expand(*call.key.shape[:2], -1, -1)
    keep = _fresh_keep(slot, call)
    dropped = attend_with_dropout(call._replace(value=eye, draw=None), slot.drop_ratio, keep) == 0
    alive = weights(call, None).to(call.query.dtype) != 0
    return (dropped & alive).sum().item() / alive.sum().item()


def _fresh_keep(slot: Slot, call: AttentionCall) -> Tensor | None:
    """Draw a mask for the renormalized form of the baseline; None for torch's form, which draws its own."""
    assert isinstance(slot.regularizer, AttentionDropout)
    if not slot.regularizer.renormalize:
        return None
    return keep_mask(*call.mask_shape, drop_ratio=slot.drop_ratio, device=call.query.device)


def _geometry(record: Record, draw: Draw) -> Geometry:
    """The shape that a record's mask was drawn for: maps of the same heads share one."""
    batch, num_maps, num_queries, num_keys = record.call.mask_shape
    num_heads = num_maps // record.maps_per_mask
    return Geometry(batch, num_heads, num_queries, num_keys, draw.grid_size, draw.num_prefix_tokens)


@contextlib.contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Put random state, every module's mode and every buffer back at the end."""
    modes = {module: module.training for module in model.modules()}
    buffers = {buffer: buffer.detach().clone() for buffer in model.buffers()}
    with _restored_random_state(model):
        try:
            yield
        finally:
            for module, training in modes.items():
                module.training = training
            with torch.no_grad():
                for buffer, value in buffers.items():
                    buffer.copy_(value)


def _full_precision(model: nn.Module) -> contextlib.ExitStack:
    """Keep autocast away from the reference."""
    kinds = {p.device.type for p in model.parameters()} | {"cpu"}
    stack = contextlib.ExitStack()
    for kind in kinds - {"meta"}:
        stack.enter_context(torch.autocast(kind, enabled=False))
    return stack


def _restored_random_state(model: nn.Module) -> AbstractContextManager[None]:
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    return torch.random.fork_rng(devices=list(devices))


def _flat(output: Any) -> list[Tensor]:
    leaves = torch.utils._pytree.tree_leaves(output)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())


def _error_text(check: SiteCheck) -> str:
    return "-" if math.isnan(check.max_error) else f"{check.max_error:.2g}"


def _verdict(check: SiteCheck) -> str:
    return "drops as it should" if check.drop_ratio > 0 else "untouched (ratio 0)"
