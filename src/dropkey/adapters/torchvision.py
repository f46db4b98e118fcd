"""torchvision's attention classes, by name: torchvision itself is not imported. Its ViT is built on torch.nn's.

Both Swins compute softmax and window mask in a function that their attention module calls.
"""

from dropkey.adapters.entry import Entry

__all__ = ["TORCHVISION_CLASSES"]

_SWIN = Entry(
    kind="window",
    routes_softmax=True,
    window_mask_value=-100.0,
    grid="window_size",
    own_dropout=("attention_dropout",),
)

TORCHVISION_CLASSES: dict[str, Entry] = {
    "torchvision.models.swin_transformer.ShiftedWindowAttention": _SWIN,  # Swin v2's is a subclass
    "torchvision.models.maxvit.RelativePositionalMultiHeadAttention": Entry(
        kind="window", routes_softmax=True, layout="bwh"
    ),
}
