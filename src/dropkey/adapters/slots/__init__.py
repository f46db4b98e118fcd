"""What happens at a site: one file for each regularizer, which does its own work there."""

from dropkey.adapters.slot import Slot
from dropkey.adapters.slots.dropkey import DropKeySlot
from dropkey.adapters.slots.dropout import DropoutSlot
from dropkey.adapters.slots.locality import LocalitySlot
from dropkey.adapters.slots.reattention import ReAttentionSlot
from dropkey.regularizers import AttentionDropout, DropKey, LocalityAttention, ReAttention, Regularizer

__all__ = ["SLOTS"]

SLOTS: dict[type[Regularizer], type[Slot]] = {
    DropKey: DropKeySlot,
    AttentionDropout: DropoutSlot,
    ReAttention: ReAttentionSlot,
    LocalityAttention: LocalitySlot,
}
