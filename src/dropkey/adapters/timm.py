"""timm's attention classes, by name: timm itself is not imported."""

from dropkey.adapters.entry import Entry

__all__ = ["TIMM_CLASSES"]

# All of them call SDPA when their fused_attn is on, and softmax(dim=-1) when it is off.
_SELF = Entry(kind="self", routes_softmax=True)
# Differential attention has two maps a head, subtracted from each other: both lose the same keys.
_DIFFERENTIAL = Entry(kind="self", routes_softmax=True, maps_per_head=2)

TIMM_CLASSES: dict[str, Entry] = {
    "timm.layers.attention.Attention": _SELF,
    "timm.layers.attention.AttentionRope": _SELF,
    "timm.models.eva.EvaAttention": _SELF,
    "timm.layers.diff_attention.DiffAttention": _DIFFERENTIAL,
    # Blocks with attention and MLP side by side, without an attention module of their own.
    "timm.models.vision_transformer.ParallelScalingBlock": _SELF,
    "timm.models.vision_transformer.DiffParallelScalingBlock": _DIFFERENTIAL,
}
