"""A site: one attention module that we act on, and the slots that say what happens there.

An adapter reduces a module's forward to query, key, value and attn_bias (``attend``) or, where a library computes the
softmax itself, to logits (``drop_logits``). The site does the rest, the same for every library. It is a plain object in
the module's ``__dict__``: it adds nothing to the state_dict, and is copied and pickled with the module.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dropkey.adapters.entry import Entry
from dropkey.adapters.forward_pass import Pass
from dropkey.adapters.logits import call_of_logits, per_map
from dropkey.adapters.recomputation import Acting, PassMemory, random_state
from dropkey.adapters.record import Listener, Record
from dropkey.adapters.slot import Slot
from dropkey.adapters.slots.dropkey import DropKeySlot
from dropkey.adapters.slots.dropout import DropoutSlot
from dropkey.adapters.slots.reattention import MixSlot
from dropkey.errors import ArgumentError, BackendError, SiteError
from dropkey.ops.call import AttentionCall, Draw
from dropkey.ops.dispatch import attend
from dropkey.ops.dropout import attend_with_dropout, drop_weights
from dropkey.ops.layout_of_output import laid_out
from dropkey.ops.operands import broadcast, checked_call
from dropkey.ops.reference import dropped_softmax, weights
from dropkey.ops.statistics import is_recomputing
from dropkey.ops.transforms import active_transform
from dropkey.patterns import Geometry

__all__ = ["Site", "attach", "detach", "require_called", "site_of", "without_site"]

_ATTRIBUTE = "_dropkey_site"


@dataclass(eq=False)
class Site:
    """One attention module that we act on.

    Args:
        name: dotted path of the module in its model.
        entry: what is special about its class.
        block_index: place of the module's block in the model, from 0.
        original_class: class of the module before it became a site.
        grid_size: (rows, cols) of the patch keys, if known; that of the last pass where the pattern needs one.
        num_prefix_tokens: keys before the patch keys.
        grid_is_given: by the user, whatever the input.
    """

    name: str
    entry: Entry
    block_index: int
    original_class: type[nn.Module]
    grid_size: tuple[int, int] | None = None
    num_prefix_tokens: int = 0
    grid_is_given: bool = False
    drop: DropKeySlot | None = None
    dropout: DropoutSlot | None = None
    mix: MixSlot | None = None
    own_dropout: dict[str, float] = field(default_factory=dict)  # the module's own rates, while they are set to 0
    listeners: tuple[Listener, ...] = ()  # see listeners.py
    passes: PassMemory = field(default_factory=PassMemory)
    calls_per_pass: int | None = None  # attention calls of the last pass in which something acted, once there was one

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "listeners": ()}  # nobody listens to a copy

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.name or 'the model itself'} ({self.original_class.__name__})"

    @property
    def backend(self) -> str:
        """What runs attention where no weights are wanted."""
        return "auto" if self.drop is None else self.drop.backend

    @property
    def num_keys(self) -> int | None:
        """How many keys each query has, if the grid is known."""
        return self.grid_size and self.grid_size[0] * self.grid_size[1] + self.num_prefix_tokens

    @property
    def wants_maps(self) -> bool:
        """Whether a listener wants whole maps, which fast paths do not compute."""
        return any(listener.wants_maps for listener in self.listeners)

    def slots(self) -> list[Slot]:
        """Return the filled slots."""
        return [*self.droppers(), *([] if self.mix is None else [self.mix])]

    def droppers(self) -> list[Slot]:
        """Return the filled slots that drop, beside which the module's own dropout is off."""
        return [slot for slot in (self.drop, self.dropout) if slot is not None]

    def acts(self, training: bool) -> bool:
        """Say whether any slot changes a forward pass of the module in this mode, or a listener hears all of them."""
        for slot in (self.drop, self.dropout, self.mix):
            if slot is not None and slot.acts(training):
                return True
        return bool(self.listeners) and any(listener.always for listener in self.listeners)

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
        # The call as torch's attention would take it, and the keys that it loses.
        try:
            call = broadcast(checked_call(query, key, value, attn_bias, is_causal, scale, grouped=grouped))
        except ArgumentError as error:
            raise SiteError(f"{self.label}: {error}") from None
        geometry = self._geometry(*call.mask_shape)
        call = call._replace(draw=self._draw(forward, call.query, geometry))
        # The module's own dropout gives way.
        if own_rate > 0 and any(slot.enabled for slot in self.droppers()):
            own_rate = 0.0
        if self.mix is not None and self.mix.acts(forward.training):
            return self._attend_mixed(self.mix, forward, call, geometry, own_rate)
        # The attention itself, with whatever drops its weights.
        drops_weights = self.dropout is not None and self.dropout.acts(forward.training)
        if self.dropout is not None and drops_weights:
            out = laid_out(self.dropout.attend(forward, call, geometry), call.query)
        elif own_rate > 0:
            out = laid_out(attend_with_dropout(call, own_rate, None), call.query)
        else:
            out = attend(call, self.backend)
        if self.listeners:
            attn_map = weights(call, call.keep()) if self.wants_maps else None
            self.tell(Record(call, out, drops=call.draw is not None or drops_weights, attn_map=attn_map))
        return out

    def _attend_mixed(
        self, mix: MixSlot, forward: Pass, call: AttentionCall, geometry: Geometry, own_rate: float
    ) -> Tensor:
        """Run plain attention and add Re-attention's change: bit-identical to plain attention while the gate is 0."""
        drops_weights = own_rate > 0 or (self.dropout is not None and self.dropout.acts(forward.training))
        if not (drops_weights or self.wants_maps) and mix.fuses(forward, call, self.backend, self.label):
            return self._attend_fused(mix, forward, call)
        # The weights of the call, after any drop.
        attn = weights(call, call.keep())
        dropped = self._dropped(forward, attn, geometry, own_rate)
        value = call.expanded().value
        # Attention without Re-attention: by the backend where the weights are those that it has itself.
        if dropped is attn and not active_transform():
            out = attend(call, self.backend)
        else:
            out = (dropped @ value.to(attn.dtype)).to(value.dtype)
        # What Re-attention adds.
        change = mix.change(forward, call, dropped, self.label)
        mixed = laid_out(out + (change.to(attn.dtype) @ value.to(attn.dtype)).to(out.dtype), call.query)
        if self.listeners:
            drops = call.draw is not None or dropped is not attn
            attn_map = dropped + change if self.wants_maps else None
            self.tell(Record(call, out, drops=drops, attn=dropped, mixed=mixed, attn_map=attn_map))
        return mixed

    def _attend_fused(self, mix: MixSlot, forward: Pass, call: AttentionCall) -> Tensor:
        """Do the same in one call that computes no map."""
        out, mixed = mix.attend_fused(forward, call, self.backend, self.label)
        mixed = laid_out(mixed, call.query)
        if self.listeners:
            attn = weights(call, call.keep())
            self.tell(Record(call, out, drops=call.draw is not None, attn=attn, mixed=mixed))
        return mixed

    def drop_logits(self, forward: Pass, logits: Tensor) -> Tensor:
        """Return the weights of logits (B, maps, Nq, Nk) that the library has computed itself, biases included."""
        forward.num_calls += 1
        if self.backend not in ("auto", "reference"):
            raise BackendError(
                f"backend {self.backend!r} cannot run {self.name}: this {self.original_class.__name__} computes "
                "its softmax in Python; use backend='auto'"
            )
        # The logits as a call, and the keys that it loses.
        batch, num_maps, num_queries, num_keys = logits.shape
        maps_per_mask = self.entry.maps_per_head
        geometry = self._geometry(batch, num_maps // maps_per_mask, num_queries, num_keys)
        draw = self._draw(forward, logits, geometry)
        call = call_of_logits(logits, draw)
        # The softmax, with whatever drops its weights.
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        keep = None if draw is None else per_map(draw.keep(*geometry[:4]), maps_per_mask)
        plain = dropped_softmax(wide, keep, call.allowed())
        attn = self._dropped(forward, plain, geometry)
        out, mixed = attn.to(logits.dtype), None
        # What Re-attention adds.
        if self.mix is not None and self.mix.acts(forward.training):
            mixed = out + self.mix.change(forward, call, attn, self.label).to(logits.dtype)
        result = out if mixed is None else mixed
        if self.listeners:
            drops = draw is not None or attn is not plain
            self.tell(Record(call, out, maps_per_mask, drops, attn, mixed, attn_map=result))
        return result

    def tell(self, record: Record) -> None:
        """Let every listener hear of a call."""
        for listener in self.listeners:
            listener.heard(record)

    def _geometry(self, batch: int, num_heads: int, num_queries: int, num_keys: int) -> Geometry:
        return Geometry(batch, num_heads, num_queries, num_keys, self.grid_size, self.num_prefix_tokens)

    def _draw(self, forward: Pass, like: Tensor, geometry: Geometry) -> Draw | None:
        slot = self.drop
        if slot is None or not slot.acts(forward.training):
            return None
        try:
            slot.pattern.check(geometry)
        except ArgumentError as error:
            raise SiteError(
                f"{self.label}: {error}, or where tokens are left out or merged choose a pattern without a grid"
            ) from None
        return slot.draw(forward, like, geometry)

    def _dropped(self, forward: Pass, attn: Tensor, geometry: Geometry, own_rate: float = 0.0) -> Tensor:
        """Return attention weights after dropout, or the very same tensor if none acts."""
        if self.dropout is not None and self.dropout.acts(forward.training):
            return self.dropout.drop(forward, attn, geometry, self.entry.maps_per_head)
        return drop_weights(attn, own_rate, None) if own_rate > 0 else attn

    def _settings(self, training: bool) -> tuple[Acting, ...]:
        """Of what drops: Re-attention draws nothing, and may be recomputed with any random state."""
        return tuple(
            Acting(slot.regularizer, slot.drop_ratio, self.grid_size, self.num_prefix_tokens)
            for slot in self.droppers()
            if slot.acts(training)
        )


def site_of(module: nn.Module) -> Site | None:
    """Return the site that a module carries, if any."""
    site = module.__dict__.get(_ATTRIBUTE)
    return site if isinstance(site, Site) else None


def attach(module: nn.Module, site: Site) -> None:
    """Let a module carry a site."""
    module.__dict__[_ATTRIBUTE] = site


def detach(module: nn.Module) -> None:
    """Take a module's site away."""
    module.__dict__.pop(_ATTRIBUTE, None)


def without_site(module: nn.Module) -> dict[str, Any]:
    """Return a copy of a module's ``__dict__`` without its site."""
    return {name: value for name, value in module.__dict__.items() if name != _ATTRIBUTE}


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
