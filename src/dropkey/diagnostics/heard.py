"""One attention call that was heard: its maps, computed from query and key when they are asked for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dropkey.adapters.discover import Found
from dropkey.adapters.mixing import mixer_of
from dropkey.adapters.own_dropout import own_rates
from dropkey.adapters.record import Record
from dropkey.errors import ArgumentError, SiteError, did_you_mean
from dropkey.ops.call import AttentionCall
from dropkey.ops.dispatch import draw_keep
from dropkey.ops.reattention import GatedHeadMixing
from dropkey.ops.reference import weights
from dropkey.ops.statistics import uncounted

__all__ = ["STAGES", "Heard", "check_stage"]

STAGES = ("softmax", "dropped", "attended")
_CHUNK = 64 * 2**20  # bytes of maps computed at a time


@dataclass(frozen=True)
class Heard:
    """One attention call of a module, as its listener was told of it.

    Args:
        found: the module.
        record: the call.
    """

    found: Found
    record: Record

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, H, Nq, Nk) of its maps; B counts windows, H softmax maps."""
        return self.record.call.mask_shape

    @property
    def dtype(self) -> torch.dtype:
        """Of its maps: float32, or float64 for float64."""
        return torch.promote_types(self.record.call.query.dtype, torch.float32)

    @property
    def value(self) -> Tensor | None:
        """What the maps are multiplied with, (B, H, Nk, Dv); None where the module has computed the softmax itself."""
        return None if self.record.of_logits else self.record.call.expanded().value

    @property
    def hides_dropout(self) -> bool:
        """Whether weights were dropped by a mask that nobody sees, so that its maps are those before that dropout."""
        module, record = self.found.module, self.record
        by_itself = module.training and bool(own_rates(module, self.found.entry.own_dropout))
        return by_itself or (record.drops and record.call.draw is None and record.attn is None)

    @torch.no_grad()
    def maps(
        self,
        stage: str = "attended",
        images: slice = slice(None),
        heads: Sequence[int] | None = None,
        queries: Sequence[int] | None = None,
    ) -> Tensor:
        """Return maps (b, h, q, Nk), each row the weights of one query.

        Args:
            stage: "softmax", before any drop; "dropped", after the drop of keys; or "attended", what the values are
                multiplied with: after Re-attention too.
            images: which of the batch.
            heads: which heads; all by default.
            queries: which queries; all by default.
        """
        mix = self._mixing() if stage == "attended" else None
        if mix is None:
            return self._weights(stage != "softmax", images, heads, queries)
        whole = mix(self._weights(True, slice(None), None, None)).to(self.dtype)
        return _chosen(whole, images, heads, queries)

    def chunks(
        self, stage: str = "attended", heads: Sequence[int] | None = None, queries: Sequence[int] | None = None
    ) -> Iterator[Tensor]:
        """Yield the maps of a few images at a time, so that those of a batch need not fit into memory at once."""
        batch, num_heads, num_queries, num_keys = self.shape
        bytes_each = (len(heads or range(num_heads))) * (len(queries or range(num_queries))) * num_keys * 4
        step = max(1, _CHUNK // max(1, bytes_each))
        if stage == "attended" and self._mixing() is not None:
            yield from torch.split(self.maps(stage, heads=heads, queries=queries), step)
            return
        for start in range(0, batch, step):
            yield self.maps(stage, slice(start, start + step), heads, queries)

    def _weights(
        self, drops: bool, images: slice, heads: Sequence[int] | None, queries: Sequence[int] | None
    ) -> Tensor:
        record = self.record
        if record.attn is not None and (drops or not record.drops):
            return _chosen(record.attn, images, heads, queries).to(self.dtype)
        call = record.call
        keep = None
        if drops and call.draw is not None:
            keep = _chosen(draw_keep(call.draw, call.mask_shape), images, heads, queries)
        return weights(_narrowed(call, images, heads, queries), keep)

    def _mixing(self) -> Callable[[Tensor], Tensor] | None:
        """Return what makes the maps that the values are multiplied with of the weights, or None."""
        own = getattr(self.found.module, "mix_maps", None)
        if own is not None:
            return _silent(self.found.module, own)
        if self.record.mixed is None:
            return None
        mixer, allowed = mixer_of(self.found.module), self.record.call.allowed()
        if not isinstance(mixer, GatedHeadMixing):
            raise SiteError(
                f"{self.found.name}: a {type(mixer).__name__} has wrapped the parameters of Re-attention, so its maps "
                'cannot be computed: capture with stage="dropped", or before the model is wrapped'
            )
        return _silent(mixer, lambda attn: attn + mixer(attn, allowed))


def check_stage(stage: str) -> str:
    """Return ``stage``, or raise an ArgumentError if there is none of that name."""
    if stage not in STAGES:
        raise ArgumentError(f"unknown stage {stage!r}{did_you_mean(str(stage), STAGES)}; known: {', '.join(STAGES)}")
    return stage


def _silent(module: nn.Module, mix: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def mixed(attn: Tensor) -> Tensor:
        with uncounted(module):
            return mix(attn)

    return mixed


def _narrowed(
    call: AttentionCall, images: slice, heads: Sequence[int] | None, queries: Sequence[int] | None
) -> AttentionCall:
    """Return the call for some images, heads and queries."""
    call = call.expanded()
    bias, is_causal = call.attn_bias, call.is_causal
    if is_causal and queries is not None:  # which keys come after a query must be known before queries are chosen
        allowed = call.allowed()
        assert allowed is not None
        floating = bias is not None and bias.dtype != torch.bool
        bias, is_causal = torch.where(allowed, bias, -torch.inf) if floating and bias is not None else allowed, False
        bias = bias[(None,) * (4 - bias.dim())]
    return call._replace(
        query=_chosen(call.query, images, heads, queries),
        key=_chosen(call.key, images, heads, None),
        value=_chosen(call.value, images, heads, None),
        attn_bias=None if bias is None else _chosen(bias, images, heads, queries),
        is_causal=is_causal,
    )


def _chosen(tensor: Tensor, images: slice, heads: Sequence[int] | None, queries: Sequence[int] | None) -> Tensor:
    """Return some images, heads and queries of (B or 1, H or 1, Nq or 1, ...); an axis of 1 is shared by all."""
    if tensor.shape[0] > 1:
        tensor = tensor[images]
    if heads is not None and tensor.shape[1] > 1:
        tensor = tensor[:, list(heads)]
    if queries is not None and tensor.shape[2] > 1:
        tensor = tensor[:, :, list(queries)]
    return tensor
