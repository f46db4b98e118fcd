"""The proof that Re-attention acts: every site against the formula, in training and in evaluation."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dropkey.adapters.listeners import recording
from dropkey.adapters.mixing import MIXER, mixer_of
from dropkey.adapters.record import Record
from dropkey.adapters.site import Site
from dropkey.adapters.slot import Slot
from dropkey.adapters.table import text_table
from dropkey.adapters.verify import restored
from dropkey.errors import SiteError

__all__ = ["MixingCheck", "MixingVerification", "verify_mixing"]


class MixingCheck(NamedTuple):
    """What was seen at one site."""

    name: str
    gate: float
    largest_change: float  # of the site's output, against plain attention
    max_error: float  # largest absolute difference from the formula


class MixingVerification(NamedTuple):
    """What ``Handle.verify`` has proved of Re-attention: ``print`` it for a table."""

    checks: list[MixingCheck]

    def __str__(self) -> str:
        header = ["site", "gate", "largest change", "largest error"]
        body = [[c.name, f"{c.gate:.4g}", f"{c.largest_change:.2g}", f"{c.max_error:.2g}"] for c in self.checks]
        return text_table([header, *body]) + "\nTraining and evaluation both mix as the formula says."


def verify_mixing(
    model: nn.Module, rows: Sequence[tuple[nn.Module, Site, Slot]], *inputs: Any, **kwargs: Any
) -> MixingVerification:
    """See ``Handle.verify``."""
    for _, _, slot in rows:
        if not slot.enabled:
            raise SiteError(f"{slot.regularizer} is disabled, so there is nothing to verify: enable() it first")
    checks: list[MixingCheck] = []
    with restored(model), torch.no_grad():
        for training in (False, True):
            model.train(training)
            # Before the run: a batch norm changes its running statistics while it runs.
            mixers = [_copied(module) for module, _, _ in rows]
            with recording([module for module, _, _ in rows]) as records:
                model(*inputs, **kwargs)
            checks = [
                _check(site, mixer, heard) for (_, site, _), mixer, heard in zip(rows, mixers, records, strict=True)
            ]
    return MixingVerification(checks)


def _copied(module: nn.Module) -> dict[str, Tensor]:
    mixer: Any = mixer_of(module)
    if mixer is None:
        raise SiteError(f"the parameters of Re-attention, {MIXER!r}, are gone from a {type(module).__name__}")
    # By attribute: whoever wraps the mixer (peft's modules_to_save) hands on what acts, under these names.
    parts = {"gate": mixer.gate, **_state("theta", mixer.theta), **_state("norm", mixer.norm)}
    state = {name: tensor.detach().double().clone() for name, tensor in parts.items()}
    return {**state, "training": torch.tensor(mixer.training)}


def _state(name: str, part: Any) -> dict[str, Tensor]:
    return {f"{name}.{key}": tensor for key, tensor in part.state_dict().items()}


def _check(site: Site, mixer: dict[str, Tensor], records: Sequence[Record]) -> MixingCheck:
    if not records:
        raise SiteError(f"{site.name} was not reached: the model did not run it, or ran around it")
    return max((_check_record(site, mixer, record) for record in records), key=lambda check: check.max_error)


def _check_record(site: Site, mixer: dict[str, Tensor], record: Record) -> MixingCheck:
    if record.attn is None or record.mixed is None:
        raise SiteError(f"{site.name} does not mix its attention maps")
    gate, value, allowed = mixer["gate"], record.call.expanded().value.double(), record.call.allowed()
    maps, gain = _mixed(record.attn.double(), mixer)
    change = gate * (maps - record.attn)
    change = change if allowed is None else change.where(allowed, 0)
    error = (record.mixed - (record.out.double() + change @ value)).abs().max().item()
    # The norm magnifies the rounding of nearly constant maps: by far the largest part of a right site's error.
    size = 1.0 + record.mixed.abs().max().item() + (gate.abs() * gain * value.abs().sum(-2).max()).item()
    bound = 16 * max(torch.finfo(record.mixed.dtype).eps, torch.finfo(torch.float32).eps) * size
    if not error <= bound:
        raise SiteError(f"{site.name} differs from the formula of Re-attention by {error:.3g}, more than {bound:.3g}")
    return MixingCheck(site.name, mixer["gate"].item(), (record.mixed - record.out).abs().max().item(), error)


def _mixed(attn: Tensor, mixer: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the mixed maps, written out from the formula, and the norm's largest gain times the maps' size."""
    theta = mixer["theta.weight"][:, :, 0, 0]
    maps = torch.einsum("hg,bgqk->bhqk", theta, attn)
    is_batch = "theta.bias" in mixer
    if is_batch:
        maps = maps + mixer["theta.bias"][:, None, None]
    axes = (0, 2, 3) if is_batch else (1,)
    mean, var = maps.mean(axes, keepdim=True), maps.var(axes, correction=0, keepdim=True)
    if is_batch and not mixer["training"]:
        mean, var = (mixer[name][:, None, None] for name in ("norm.running_mean", "norm.running_var"))
    scale = mixer["norm.weight"][:, None, None] / (var + 1e-5).sqrt()
    return scale * (maps - mean) + mixer["norm.bias"][:, None, None], scale.abs().max() * maps.abs().max()
