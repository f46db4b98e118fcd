"""The slots of one site, in the order in which they work."""

from typing import Any

from dropkey.adapters.slot import STAGES, Slot

__all__ = ["Slots"]


class Slots(tuple[Slot, ...]):
    """The slots of one site by stage: any number before the softmax, one on the weights, one on whole maps."""

    __slots__ = ()

    @property
    def backend(self) -> str:
        """What runs attention: "auto", unless a slot was given another one."""
        return next((slot.backend for slot in self if slot.backend != "auto"), "auto")

    @property
    def mixes(self) -> bool:
        """Whether something of ours works on whole maps."""
        return self.at_stage("maps") is not None

    @property
    def replaces_dropout(self) -> bool:
        """Whether something of ours drops, to which the module's own dropout gives way."""
        return any(slot.enabled for slot in self if slot.drops)

    def acting(self, training: bool) -> "Slots":
        """Return the slots that change a forward pass of the module in this mode."""
        return Slots(slot for slot in self if slot.acts(training))

    def at_stage(self, stage: str) -> Any:
        """Return the slot, with the methods of its stage, at a stage which has room for one; None if there is none."""
        return next((slot for slot in self if slot.stage == stage), None)

    def rival(self, slot_class: type[Slot]) -> Slot | None:
        """Return the slot that leaves no room for one of a class: the same, or another at a stage with room for one."""
        stage = slot_class.stage
        return next((s for s in self if type(s) is slot_class or (s.stage == stage != "logits")), None)

    def joined_by(self, slot: Slot) -> "Slots":
        """Return these slots and another one, in its place."""
        return Slots(sorted((*self, slot), key=lambda each: STAGES.index(each.stage)))

    def without(self, slot: Slot) -> "Slots":
        """Return these slots but one."""
        return Slots(each for each in self if each is not slot)
