"""A site: one attention module that we act on, and the slots that say what happens there.

An adapter reduces a module's forward to query, key, value and attn_bias (``attend``) or, where a library computes the
softmax itself, to logits (``drop_logits``). The site does the rest, the same for every library. It is a plain object in
the module's ``__dict__``: it adds nothing to the state_dict, and is copied and pickled with the module.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from dropkey.adapters.entry import Entry
from dropkey.adapters.forward_pass import Pass, Record, ratio_of_call
from dropkey.adapters.recomputation import Acting, PassMemory, random_state
from dropkey.adapters.slot import MixSlot, Slot
from dropkey.errors import ArgumentError, BackendError, SiteError
from dropkey.ops.call import AttentionCall, Draw
from dropkey.ops.dispatch import attend, attend_kept, kept_tokens
from dropkey.ops.dropout import attend_with_dropout, drop_weights
from dropkey.ops.layout_of_output import laid_out
from dropkey.ops.mixed_attention import attend_mixed, refuses
from dropkey.ops.operands import broadcast, checked_call
from dropkey.ops.reattention import HeadMixing
from dropkey.ops.reference import dropped_softmax, weights
from dropkey.ops.statistics import counts_batches, is_recomputing
from dropkey.ops.transforms import active_transform, check_randomness
from dropkey.patterns import Element, Geometry, Pattern, Token
from dropkey.regularizers import AttentionDropout, DropKey

__all__ = ["MIXER", "Selection", "Site", "mixer_of", "site_of"]

MIXER = "reattention"  # name of the submodule that holds Re-attention's parameters in an attention module
_ATTRIBUTE = "_dropkey_site"


class Selection(NamedTuple):
    """Which tokens keep their keys."""

    rows: Tensor  # int64 (B, n), as rows of x.view(B * N, C)
    draw: Draw


@dataclass(eq=False)
class Site:
    """One attention module that we act on.

    Args:
        name: dotted path of the module in its model.
        entry: what is special about its class.
        block_index: place of the module's block in the model, from 0.
        original_class: class of the module before it became a site.
        grid_size: (rows, cols) of the patch keys, if known.
        num_prefix_tokens: keys before the patch keys.
    """

    name: str
    entry: Entry
    block_index: int
    original_class: type[nn.Module]
    grid_size: tuple[int, int] | None = None
    num_prefix_tokens: int = 0
    drop: Slot | None = None
    dropout: Slot | None = None
    mix: MixSlot | None = None
    own_dropout: dict[str, float] = field(default_factory=dict)  # the module's own rates, while they are set to 0
    records: list[Record] | None = None
    maps: list[Tensor] | None = None  # of its attention calls, with their gradients, while somebody listens: maps.py
    passes: PassMemory = field(default_factory=PassMemory)
    calls_per_pass: int | None = None  # attention calls of the last pass in which something acted, once there was one

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.name or 'the model itself'} ({self.original_class.__name__})"

    def slots(self) -> list[Slot]:
        """Return the filled slots."""
        return [*self.droppers(), *([] if self.mix is None else [self.mix])]

    def droppers(self) -> list[Slot]:
        """Return the filled slots that drop, beside which the module's own dropout is off."""
        return [slot for slot in (self.drop, self.dropout) if slot is not None]

    def acts(self, training: bool) -> bool:
        """Say whether any slot changes a forward pass of the module in this mode, or somebody wants its maps."""
        return self.maps is not None or any(slot.acts(training) for slot in self.slots())

    def follow(self, training: bool, acts: bool, inputs: tuple[object, ...]) -> None:
        """Note a forward pass in which something acts; see that a recomputation is made as its forward pass was.

        Raises:
            SiteError: the settings have changed between a forward pass and its recomputation in the backward pass.
        """
        recomputes = is_recomputing()
        if not acts and not (recomputes and self.passes):
            return
        state = random_state(inputs)
        if state is None:
            return
        settings = self._settings(training) if acts else ()
        if recomputes:
            self.passes.check(self.label, state, settings)
        elif settings:
            self.passes.note(state, settings)

    def _settings(self, training: bool) -> tuple[Acting, ...]:
        """Of what drops: Re-attention draws nothing, and may be recomputed with any random state."""
        return tuple(
            Acting(slot.regularizer, slot.drop_ratio, self.grid_size, self.num_prefix_tokens)
            for slot in (self.drop, self.dropout)
            if slot is not None and slot.acts(training)
        )

    def selects_tokens(self, forward: Pass) -> bool:
        """Say whether keys of dropped tokens need not be computed at all.

        They must be masked instead under any other pattern, beside another regularizer, for whole maps, and in a
        compiled graph, whose shapes must not follow the drop ratio.
        """
        slot = self.drop
        if slot is None or not slot.acts(forward.training) or torch.compiler.is_compiling() or self.maps is not None:
            return False
        pattern = slot.regularizer.pattern if isinstance(slot.regularizer, DropKey) else None
        alone = not any(s.acts(forward.training) for s in (self.dropout, self.mix) if s is not None)
        return isinstance(pattern, Token) and alone and slot.backend != "reference"

    def select_tokens(self, forward: Pass, x: Tensor, num_heads: int) -> "Selection":
        """Return which tokens of x (B, N, C) keep their keys, where ``selects_tokens`` says so."""
        forward.num_calls += 1
        geometry = self._geometry(x.shape[0], num_heads, x.shape[1], x.shape[1])
        draw = self._draw(forward, x, geometry)
        assert draw is not None
        assert self.drop is not None
        counted = draw._replace(drop_ratio=ratio_of_call(self.drop.ratio_tensor, x))  # on the CPU: shapes follow it
        return Selection(kept_tokens(counted, geometry), draw)

    def attend_selected(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Run the attention over the keys that ``select_tokens`` has left: nothing more is dropped."""
        assert self.drop is not None
        call = AttentionCall(query, key, value, None, False, query.shape[-1] ** -0.5, None)
        return attend_kept(call, self.drop.backend)

    def record(self, selection: "Selection", query: Tensor, key: Tensor, value: Tensor, out: Tensor) -> None:
        """Keep what a selected attention stands for, with all keys and their mask, if somebody records."""
        if self.records is not None:
            scale = query.shape[-1] ** -0.5
            self.records.append(Record(AttentionCall(query, key, value, None, False, scale, selection.draw), out))

    def attend(
        self,
        forward: Pass,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_bias: Tensor | None = None,
        is_causal: bool = False,
        scale: float | Tensor | None = None,
        own_rate: float = 0.0,
        grouped: bool = True,
    ) -> Tensor:
        """Run the attention of this site.

        Arguments are as in ``dropkey.attention``; ``own_rate`` is the module's own dropout of attention weights, which
        counts where Re-attention or nothing acts and gives way to whatever drops; ``grouped`` says whether fewer key
        heads are shared by groups of query heads.

        Raises:
            SiteError: what torch's attention would not take.
        """
        forward.num_calls += 1
        try:
            call = broadcast(checked_call(query, key, value, attn_bias, is_causal, scale, grouped=grouped))
        except ArgumentError as error:
            raise SiteError(f"{self.label}: {error}") from None
        query = call.query
        geometry = self._geometry(*call.mask_shape)
        call = call._replace(draw=self._draw(forward, query, geometry))
        if any(slot.enabled for slot in self.droppers()):
            own_rate = 0.0
        if self.mix is not None and self.mix.acts(forward.training):
            return self._attend_mixed(forward, call, geometry, own_rate)
        if self.maps is not None:
            self.maps.append(weights(call, call.keep()))
        if self.dropout is not None and self.dropout.acts(forward.training):
            check_randomness()
            keep = self._dropout_keep(forward, query, geometry)
            out = laid_out(attend_with_dropout(call, self.dropout.drop_ratio, keep), query)
        elif own_rate > 0:
            out = laid_out(attend_with_dropout(call, own_rate, None), query)
        else:
            out = attend(call, "auto" if self.drop is None else self.drop.backend)
        if self.records is not None:
            self.records.append(Record(call, out))
        return out

    def _attend_mixed(self, forward: Pass, call: AttentionCall, geometry: Geometry, own_rate: float) -> Tensor:
        """Attend as without Re-attention and add the change it makes: while that is 0, the result is bit for bit so."""
        if self._fuses(forward, call, own_rate):
            return laid_out(self._attend_fused(forward, call), call.query)
        attn = weights(call, call.keep())
        dropped = self._dropped(forward, attn, geometry, own_rate)
        value = call.expanded().value
        if dropped is attn and not active_transform():
            out = attend(call, "auto" if self.drop is None else self.drop.backend)
        else:
            out = (dropped @ value.to(attn.dtype)).to(value.dtype)
        change = self._change(forward, call, dropped)
        mixed = laid_out(out + (change.to(attn.dtype) @ value.to(attn.dtype)).to(out.dtype), call.query)
        if self.records is not None:
            drops = call.draw is not None or dropped is not attn
            self.records.append(Record(call, out, drops=drops, attn=dropped, mixed=mixed))
        if self.maps is not None:
            self.maps.append(dropped + change)
        return mixed

    def _fuses(self, forward: Pass, call: AttentionCall, own_rate: float) -> bool:
        """Say whether one fused call mixes the maps: where nobody wants to see them and no weights are dropped."""
        drops_weights = own_rate > 0 or (self.dropout is not None and self.dropout.acts(forward.training))
        if drops_weights or self.maps is not None:
            return False
        backend = "auto" if self.drop is None else self.drop.backend
        return refuses(call, self._mixer(forward), backend) is None

    def _attend_fused(self, forward: Pass, call: AttentionCall) -> Tensor:
        mixer = self._mixer(forward)
        assert isinstance(mixer, HeadMixing)
        with torch.no_grad():  # the fused call gives the gradients of both terms
            backend = "auto" if self.drop is None else self.drop.backend
            out = attend(call, backend)
        mixed = attend_mixed(call, mixer, plain=out, backend=backend)
        if self.records is not None:
            attn = weights(call, call.keep())
            self.records.append(Record(call, out, drops=call.draw is not None, attn=attn, mixed=mixed))
        return mixed

    def drop_logits(self, forward: Pass, logits: Tensor) -> Tensor:
        """Return the weights of logits (B, maps, Nq, Nk) that the library has computed itself, biases included."""
        forward.num_calls += 1
        if self.drop is not None and self.drop.backend not in ("auto", "reference"):
            raise BackendError(
                f"backend {self.drop.backend!r} cannot run {self.name}: this {self.original_class.__name__} computes "
                "its softmax in Python; use backend='auto'"
            )
        batch, num_maps, num_queries, num_keys = logits.shape
        maps_per_mask = self.entry.maps_per_head
        geometry = self._geometry(batch, num_maps // maps_per_mask, num_queries, num_keys)
        draw = self._draw(forward, logits, geometry)
        call = _call_of_logits(logits, draw)
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        keep = None if draw is None else per_map(draw.keep(*geometry[:4]), maps_per_mask)
        plain = dropped_softmax(wide, keep, call.allowed())
        attn = self._dropped(forward, plain, geometry)
        out, mixed = attn.to(logits.dtype), None
        if self.mix is not None and self.mix.acts(forward.training):
            mixed = out + self._change(forward, call, attn).to(logits.dtype)
        if self.records is not None:
            drops = draw is not None or attn is not plain
            self.records.append(Record(call, out, maps_per_mask, drops, attn, mixed))
        result = out if mixed is None else mixed
        if self.maps is not None:
            self.maps.append(result)
        return result

    def _geometry(self, batch: int, num_heads: int, num_queries: int, num_keys: int) -> Geometry:
        return Geometry(batch, num_heads, num_queries, num_keys, self.grid_size, self.num_prefix_tokens)

    def _draw(self, forward: Pass, like: Tensor, geometry: Geometry) -> Draw | None:
        slot = self.drop
        if slot is None or not slot.acts(forward.training):
            return None
        assert isinstance(slot.regularizer, DropKey)
        assert isinstance(slot.regularizer.pattern, Pattern)
        pattern, grid_size = slot.regularizer.pattern, geometry.grid_size
        held, threshold = slot.ratio_tensor, None
        if like.is_cuda and type(like) is not FakeTensor:
            held = slot.on_devices.on(like.device, slot.ratio_tensor)
            threshold = slot.on_devices.seed_threshold(like.device, slot.ratio_tensor, pattern, grid_size)
        threshold = None if threshold is None else threshold.clone()
        seed, ratio = forward.seed("drop", like.device), ratio_of_call(held, like)
        return Draw(pattern, ratio, seed, grid_size, geometry.num_prefix_tokens, threshold)

    def _dropped(self, forward: Pass, attn: Tensor, geometry: Geometry, own_rate: float = 0.0) -> Tensor:
        """Return attention weights after dropout, or the very same tensor if none acts."""
        if self.dropout is not None and self.dropout.acts(forward.training):
            keep = self._dropout_keep(forward, attn, geometry)
            keep = None if keep is None else per_map(keep, self.entry.maps_per_head)
            return drop_weights(attn, self.dropout.drop_ratio, keep)
        return drop_weights(attn, own_rate, None) if own_rate > 0 else attn

    def _change(self, forward: Pass, call: AttentionCall, attn: Tensor) -> Tensor:
        """Return what Re-attention adds to the attention weights (B, H, Nq, Nk)."""
        mixer = self._mixer(forward)
        if active_transform() and counts_batches(getattr(mixer, "norm", None)):
            raise SiteError(
                f"{self.label}: Re-attention's batch norm counts batches in place, which {active_transform()} cannot "
                'follow: set the mixing to eval(), or apply ReAttention(norm="layer")'
            )
        change = mixer(attn, call.allowed())
        assert isinstance(change, Tensor)
        return change

    def _mixer(self, forward: Pass) -> nn.Module:
        if forward.mixer is None or forward.num_calls > 1:
            raise SiteError(
                f"{self.name} ({self.original_class.__name__}) has no plain self-attention, one softmax a forward pass "
                "in an adapter that knows Re-attention: choose other blocks for dropkey.ReAttention"
            )
        return forward.mixer

    def _dropout_keep(self, forward: Pass, attn: Tensor, geometry: Geometry) -> Tensor | None:
        """The mask of the renormalized baseline, or None for torch's form."""
        assert self.dropout is not None
        assert isinstance(self.dropout.regularizer, AttentionDropout)
        if not self.dropout.regularizer.renormalize:
            return None
        seed, ratio = forward.seed("dropout", attn.device), ratio_of_call(self.dropout.ratio_tensor, attn)
        return Element().keep(seed, ratio, geometry)


def per_map(keep: Tensor, maps_per_mask: int) -> Tensor:
    """Repeat a mask (B, H or 1, ...) for neighbouring softmax maps that share it: (B, H * maps_per_mask or 1, ...)."""
    return keep.repeat_interleave(maps_per_mask, dim=1) if keep.shape[1] > 1 and maps_per_mask > 1 else keep


def _call_of_logits(logits: Tensor, draw: Draw | None) -> AttentionCall:
    """Write logits as an attention call: they are its bias, and the identity as values makes its output the weights."""
    batch, num_maps, num_queries, num_keys = logits.shape
    query, key = logits.new_zeros(()), logits.new_zeros(())
    eye = torch.eye(num_keys, dtype=logits.dtype, device=logits.device).expand(batch, num_maps, -1, -1)
    return AttentionCall(
        query.expand(batch, num_maps, num_queries, 1),
        key.expand(batch, num_maps, num_keys, 1),
        eye,
        logits,
        False,
        1.0,
        draw,
    )


def site_of(module: nn.Module) -> Site | None:
    """Return the site that a module carries, if any."""
    site = module.__dict__.get(_ATTRIBUTE)
    return site if isinstance(site, Site) else None


def mixer_of(module: nn.Module) -> nn.Module | None:
    """Return what a module mixes its attention maps with, if Re-attention was applied to it."""
    return module._modules.get(MIXER)


def attach(module: nn.Module, site: Site) -> None:
    """Let a module carry a site."""
    module.__dict__[_ATTRIBUTE] = site


def detach(module: nn.Module) -> None:
    """Take a module's site away."""
    module.__dict__.pop(_ATTRIBUTE, None)


def require_called(site: Site, forward: Pass) -> None:
    """Raise a SiteError if a forward pass of the module made no attention call: nothing is silently not applied."""
    if not forward.num_calls:
        raise SiteError(
            f"{site.name} ({site.original_class.__name__}) ran without calling scaled_dot_product_attention, "
            "so nothing could be dropped: if its forward computes the softmax itself, register the class with "
            "softmax=True, and with layout='b' if it does so on (batch * heads, queries, keys)"
        )
    if not torch.compiler.is_compiling():
        site.calls_per_pass = forward.num_calls
