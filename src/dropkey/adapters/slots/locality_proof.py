"""The proof that locality self-attention acts at a site: its maps and outputs against the formula."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from dropkey.adapters.record import Record
from dropkey.errors import SiteError
from dropkey.ops.call import AttentionCall
from dropkey.ops.reference import dropped_softmax, weights

__all__ = ["LocalityCheck", "Noted", "check"]


class Noted(NamedTuple):
    """What a module was before the pass."""

    gain: Tensor  # float64 (H,)
    training: bool


@dataclass(frozen=True)
class LocalityCheck:
    """What was seen at one site."""

    name: str
    gains: tuple[float, float]  # the smallest and the largest factor of a head
    largest_on_diagonal: float
    max_error: float  # largest absolute difference of the maps from the formula

    header: ClassVar[tuple[str, ...]] = ("logits times", "largest weight on itself", "largest error")
    conclusion: ClassVar[str] = "Training and evaluation both attend as the formula says."

    def cells(self) -> list[str]:
        """Return the row of the table under ``header``."""
        low, high = self.gains
        return [f"{low:.4g} to {high:.4g}", f"{self.largest_on_diagonal:.2g}", f"{self.max_error:.2g}"]


def check(name: str, noted: Noted, masks: bool, records: Sequence[Record]) -> LocalityCheck:
    """Check every attention call of one forward pass against the formula."""
    return max((_check_record(name, noted, masks, record) for record in records), key=lambda check: check.max_error)


def _check_record(name: str, noted: Noted, masks: bool, record: Record) -> LocalityCheck:
    assert record.given is not None
    logits, allowed = _logits(record.given, noted.gain, record.of_logits, masks)
    keep = record.call.keep()
    want, got = dropped_softmax(logits, keep, allowed), weights(record.call, keep).double()
    finite = logits.where(allowed, 0).abs().max().item()
    bound = 16 * torch.finfo(record.given.query.dtype).eps * (1 + finite)
    error = (got - want).abs().max().item()
    if not error <= bound:
        raise SiteError(f"{name} attends other than locality self-attention by {error:.3g}, more than {bound:.3g}")
    if not noted.training:  # in training weights may be dropped besides, by masks that nobody sees
        value = record.given.expanded().value.double()
        off, size = (record.out - want @ value).abs().max().item(), value.abs().sum(-2).max().item()
        if not off <= bound * (1 + size):
            raise SiteError(f"{name} gives other outputs than locality self-attention by {off:.3g}")
    gains = noted.gain.min().item(), noted.gain.max().item()
    return LocalityCheck(name, gains, got.diagonal(dim1=-2, dim2=-1).max().item(), error)


def _logits(given: AttentionCall, gain: Tensor, of_logits: bool, masks: bool) -> tuple[Tensor, Tensor]:
    """Return the logits in float64, written out from the formula, and which keys each query may see."""
    call, gain = given.expanded(), gain[:, None, None]
    bias = 0.0 if call.attn_bias is None or call.attn_bias.dtype == torch.bool else call.attn_bias.double()
    products = call.scale * (call.query.double() @ call.key.double().mT)
    logits = (products + bias) * gain if of_logits else products * gain + bias
    allowed = torch.ones(call.mask_shape, dtype=torch.bool, device=logits.device)
    seen = call.allowed()
    allowed = allowed if seen is None else allowed & seen
    if masks:
        others = allowed & ~torch.eye(allowed.shape[-1], dtype=torch.bool, device=logits.device)
        allowed = torch.where(others.any(-1, keepdim=True), others, allowed)
    return logits, allowed
