"""A site: one attention module that we act on, and the slots that say what happens there.

An adapter reduces a module's forward to an attention call (``attend``) or, where a library computes the softmax itself,
to logits (``attend_logits``). The site leads the call past its slots, the same for every library. It is a plain object
in the module's ``__dict__``: it adds nothing to the state_dict, and is copied and pickled with the module.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dropkey.adapters.entry import SITE, Entry
from dropkey.adapters.forward_pass import ForwardPass
from dropkey.adapters.logits import call_of_logits, per_map
from dropkey.adapters.recomputation import Acting, PassMemory
from dropkey.adapters.record import Listener, Record, record_of
from dropkey.adapters.site_call import Attended, SiteCall
from dropkey.adapters.slots_of_site import Slots
from dropkey.adapters.weight_dropout import ModuleDropout, WeightDropper
from dropkey.errors import BackendError
from dropkey.ops.call import AttentionCall
from dropkey.ops.dispatch import attend
from dropkey.ops.layout_of_output import laid_out
from dropkey.ops.reference import dropped_softmax
from dropkey.patterns import Geometry

__all__ = ["Site", "attach", "detach", "site_of", "without_site"]


@dataclass(eq=False)
class Site:
    """One attention module that we act on.

    Args:
        name: dotted path of the module in its model.
        entry: what is special about its class.
        block_index: place of the module's block in the model, from 0.
        is_ordered: whether blocks were counted as they run on an example, not as they are registered.
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
    is_ordered: bool = False
    slots: Slots = field(default_factory=Slots)
    own_dropout: dict[str, float] = field(default_factory=dict)  # the module's own rates, while they are set to 0
    listeners: tuple[Listener, ...] = ()  # see listeners.py
    num_told: int = 0  # attention calls that they were told of
    passes: PassMemory = field(default_factory=PassMemory)
    calls_per_pass: int | None = None  # attention calls of the last pass in which something acted, once there was one

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "listeners": ()}  # nobody listens to a copy

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.name or 'the model itself'} ({self.original_class.__name__})"

    @property
    def num_keys(self) -> int | None:
        """How many keys each query has, if the grid is known."""
        return self.grid_size and self.grid_size[0] * self.grid_size[1] + self.num_prefix_tokens

    @property
    def is_heard(self) -> bool:
        """Whether a listener hears forward passes in which nothing acts, too."""
        return any(listener.always for listener in self.listeners)

    @property
    def wants_maps(self) -> bool:
        """Whether a listener wants whole maps, which fast paths do not compute."""
        return any(listener.wants_maps for listener in self.listeners)

    def acts(self, training: bool) -> bool:
        """Say whether any slot changes a forward pass of the module in this mode."""
        return bool(self.slots.acting(training))

    def follow(self, training: bool, acts: bool, inputs: tuple[object, ...]) -> None:
        """Note a forward pass in which something acts; see that a recomputation is made as its forward pass was.

        Raises:
            SiteError: the settings have changed between a forward pass and its recomputation in the backward pass.
        """
        slots = self.slots.acting(training) if acts else Slots()
        for slot in slots:
            slot.handle_id.order.ran(self.name, self.block_index)
        # Re-attention draws nothing, and may be recomputed with any random state.
        grid = self.grid_size, self.num_prefix_tokens
        settings = tuple(Acting(slot.regularizer, slot.drop_ratio, *grid) for slot in slots if slot.drops)
        self.passes.follow(self.label, acts, inputs, settings)

    def attend(self, forward_pass: ForwardPass, call: AttentionCall, own_rate: float = 0.0) -> Tensor:
        """Run one attention call of this site.

        Args:
            forward_pass: in which the module makes it.
            call: checked and broadcast, without a draw.
            own_rate: the module's own dropout of attention weights; it gives way to whatever of ours drops.

        Returns:
            (B, H, Nq, Dv) in the query's dtype, laid out like the query.
        """
        at, slots = self._enter(forward_pass, call)
        # The weights are dropped by a slot, or by the module's own dropout.
        dropper, mixer = self._dropper(slots, own_rate), slots.at_stage("maps")
        if mixer is not None:
            attended: Attended = mixer.attend(at, dropper)
        elif dropper is not None:
            attended = Attended(laid_out(dropper.attend(at), at.call.query))
        else:
            attended = Attended(attend(at.call, at.backend))
        self._tell(at, slots, attended)
        return attended.out if attended.mixed is None else attended.mixed

    def attend_logits(self, forward_pass: ForwardPass, logits: Tensor) -> Tensor:
        """Return the weights of logits (B, maps, Nq, Nk) that the library has computed itself, biases included."""
        if self.slots.backend not in ("auto", "reference"):
            raise BackendError(
                f"backend {self.slots.backend!r} cannot run {self.name}: this {self.original_class.__name__} computes "
                "its softmax in Python; use backend='auto'"
            )
        at, slots = self._enter(forward_pass, call_of_logits(logits), of_logits=True)
        # The softmax, without the keys that are dropped.
        draw, bias = at.call.draw, at.call.attn_bias
        assert bias is not None
        keep = None if draw is None else per_map(draw.keep(*at.geometry[:4]), at.maps_per_mask)
        plain = dropped_softmax(bias.to(torch.promote_types(bias.dtype, torch.float32)), keep, at.call.allowed())
        # The weights that are dropped after it, and what Re-attention adds.
        dropper, mixer = self._dropper(slots, 0.0), slots.at_stage("maps")
        attn = plain if dropper is None else dropper.drop_weights(at, plain)
        out, mixed = attn.to(logits.dtype), None
        if mixer is not None:
            mixed = out + mixer.change(at, attn).to(logits.dtype)
        result = out if mixed is None else mixed
        self._tell(at, slots, Attended(out, mixed, attn, result))
        return result

    def _enter(self, forward_pass: ForwardPass, call: AttentionCall, of_logits: bool = False) -> tuple[SiteCall, Slots]:
        """Lead a call past all that works before the softmax; return it with the slots that act."""
        forward_pass.num_calls += 1
        maps_per_mask = self.entry.maps_per_head if of_logits else 1
        slots = self.slots.acting(forward_pass.training)
        batch, num_maps, num_queries, num_keys = call.mask_shape
        geometry = Geometry(
            batch, num_maps // maps_per_mask, num_queries, num_keys, self.grid_size, self.num_prefix_tokens
        )
        options = self.label, self.slots.backend, self.wants_maps
        at = SiteCall(forward_pass, call, geometry, maps_per_mask, *options, given=call, of_logits=of_logits)
        for slot in slots:
            at = slot.before(at)
        return at, slots

    def _dropper(self, slots: Slots, own_rate: float) -> WeightDropper | None:
        dropper: WeightDropper | None = slots.at_stage("weights")
        if dropper is None and own_rate > 0 and not self.slots.replaces_dropout:
            return ModuleDropout(own_rate)
        return dropper

    def _tell(self, at: SiteCall, slots: Slots, attended: Attended) -> None:
        if self.listeners:
            self.tell(record_of(at, attended, drops=any(slot.drops for slot in slots), shares_mask=self.entry.one_mask))

    def tell(self, record: Record) -> None:
        """Let every listener hear of a call."""
        self.num_told += 1
        for listener in self.listeners:
            listener.heard(record)


def site_of(module: nn.Module) -> Site | None:
    """Return the site that a module carries, if any."""
    site = module.__dict__.get(SITE)
    return site if isinstance(site, Site) else None


def attach(module: nn.Module, site: Site) -> None:
    """Let a module carry a site."""
    module.__dict__[SITE] = site


def detach(module: nn.Module) -> None:
    """Take a module's site away."""
    module.__dict__.pop(SITE, None)


def without_site(module: nn.Module) -> dict[str, Any]:
    """Return a copy of a module's ``__dict__`` without its site."""
    return {name: value for name, value in module.__dict__.items() if name != SITE}
