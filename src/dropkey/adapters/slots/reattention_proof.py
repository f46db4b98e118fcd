"""The proof that Re-attention acts at a site: its output against the formula."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dropkey.adapters.mixing import MIXER, mixer_of
from dropkey.adapters.record import Record
from dropkey.errors import SiteError

__all__ = ["MixCheck", "Mixer", "check", "copied"]

Mixer = dict[str, Tensor]  # parameters and statistics of a mixing, in float64


@dataclass(frozen=True)
class MixCheck:
    """What was seen at one site."""

    name: str
    gate: float
    largest_change: float  # of the site's output, against plain attention
    max_error: float  # largest absolute difference from the formula

    header: ClassVar[tuple[str, ...]] = ("gate", "largest change", "largest error")
    conclusion: ClassVar[str] = "Training and evaluation both mix as the formula says."

    def cells(self) -> list[str]:
        """Return the row of the table under ``header``."""
        return [f"{self.gate:.4g}", f"{self.largest_change:.2g}", f"{self.max_error:.2g}"]


def copied(module: nn.Module) -> Mixer:
    """Return a copy of what a module mixes its maps with."""
    mixer: Any = mixer_of(module)
    if mixer is None:
        raise SiteError(f"the parameters of Re-attention, {MIXER!r}, are gone from a {type(module).__name__}")
    # By attribute: whoever wraps the mixer (peft's modules_to_save) hands on what acts, under these names.
    parts = {"gate": mixer.gate, **_state("theta", mixer.theta), **_state("norm", mixer.norm)}
    state = {name: tensor.detach().double().clone() for name, tensor in parts.items()}
    return {**state, "training": torch.tensor(mixer.training)}


def _state(name: str, part: Any) -> Mixer:
    return {f"{name}.{key}": tensor for key, tensor in part.state_dict().items()}


def check(name: str, mixer: Mixer, records: Sequence[Record]) -> MixCheck:
    """Check every attention call of one forward pass against the formula."""
    return max((_check_record(name, mixer, record) for record in records), key=lambda check: check.max_error)


def _check_record(name: str, mixer: Mixer, record: Record) -> MixCheck:
    if record.attn is None or record.mixed is None:
        raise SiteError(f"{name} does not mix its attention maps")
    gate, value, allowed = mixer["gate"], record.call.expanded().value.double(), record.call.allowed()
    maps, gain = _mixed(record.attn.double(), mixer)
    change = gate * (maps - record.attn)
    change = change if allowed is None else change.where(allowed, 0)
    error = (record.mixed - (record.out.double() + change @ value)).abs().max().item()
    # The norm magnifies the rounding of nearly constant maps: by far the largest part of a right site's error.
    size = 1.0 + record.mixed.abs().max().item() + (gate.abs() * gain * value.abs().sum(-2).max()).item()
    bound = 16 * max(torch.finfo(record.mixed.dtype).eps, torch.finfo(torch.float32).eps) * size
    if not error <= bound:
        raise SiteError(f"{name} differs from the formula of Re-attention by {error:.3g}, more than {bound:.3g}")
    return MixCheck(name, gate.item(), (record.mixed - record.out).abs().max().item(), error)


def _mixed(attn: Tensor, mixer: Mixer) -> tuple[Tensor, Tensor]:
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
