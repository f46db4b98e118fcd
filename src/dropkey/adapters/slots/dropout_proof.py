"""The proof that dropout of attention weights acts at a site, as far as it can be seen: torch exports no mask."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dropkey.adapters.record import Record
from dropkey.adapters.slots.drop_check import DropCheck, check_share
from dropkey.errors import SiteError
from dropkey.ops.attention import keep_mask
from dropkey.ops.call import AttentionCall
from dropkey.ops.dropout import attend_with_dropout, drop_weights
from dropkey.ops.reference import weights
from dropkey.patterns import Element, Geometry

if TYPE_CHECKING:
    from dropkey.adapters.slots.dropout import DropoutSlot

__all__ = ["check"]

_CHANCE = 1e-9


def check(name: str, slot: "DropoutSlot", records: Sequence[Record]) -> DropCheck:
    """Check that every attention call of one forward pass lost weights, and that as many are lost as should be."""
    if not slot.is_positive:
        return DropCheck(name, 0.0, 0.0, math.nan, len(records))
    shares = [_check_record(name, slot, record) for record in records]
    return DropCheck(name, slot.drop_ratio, shares[0], math.nan, len(records))


def _check_record(name: str, slot: "DropoutSlot", record: Record) -> float:
    _check_differs(name, slot, record)
    share = _share_of_dropped_weights(slot, record.call)
    bound = Element().share_tolerance(slot.drop_ratio, Geometry(*record.call.mask_shape))
    check_share(name, share, slot.drop_ratio, bound)
    return share


def _check_differs(name: str, slot: "DropoutSlot", record: Record) -> None:
    """Raise if a site's output is what it would be with all weights kept."""
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
        raise SiteError(f"{name} drops no attention weights in training mode")


def _share_of_dropped_weights(slot: "DropoutSlot", call: AttentionCall) -> float:
    """Measure dropout of weights by giving it the identity as values: its output is then the weights."""
    num_keys = call.key.shape[2]
    eye = torch.eye(num_keys, dtype=call.query.dtype, device=call.query.device).expand(*call.key.shape[:2], -1, -1)
    keep = _fresh_keep(slot, call)
    dropped = attend_with_dropout(call._replace(value=eye, draw=None), slot.drop_ratio, keep) == 0
    alive = weights(call, None).to(call.query.dtype) != 0
    return (dropped & alive).sum().item() / alive.sum().item()


def _fresh_keep(slot: "DropoutSlot", call: AttentionCall) -> Tensor | None:
    """Draw a mask for the renormalized form of the baseline; None for torch's form, which draws its own."""
    if not slot.renormalizes:
        return None
    return keep_mask(*call.mask_shape, drop_ratio=slot.drop_ratio, device=call.query.device)
