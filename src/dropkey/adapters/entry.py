"""How to enter one attention class: what an adapter says of it."""

from dataclasses import dataclass

__all__ = ["SITE", "Entry"]

SITE = "_dropkey_site"  # attribute of a module that holds its site


@dataclass(frozen=True)
class Entry:
    """What is special about an attention class.

    Args:
        kind: what the handle's table calls it: "self", "window", "cross", "class" (the class token alone asks), "pool",
            or a word of the user's.
        routes_softmax: its forward may compute ``softmax(logits, dim=-1)`` itself.
        maps_per_head: softmax maps per head that share one mask, next to each other on the head axis.
        layout: axes before (tokens, channels), see ``layout.py``; tensors of (B, H, tokens, channels) are always fine.
        one_mask: the attention calls of one forward are maps of the same heads and share a mask. Otherwise each is one
            of other heads, images or queries, and draws by itself.
        window_mask: (position, name) of a forward argument that marks keys of other windows by a finite negative
            number; they become forbidden keys while the site acts.
        window_mask_value: the number with which the forward itself marks such keys (by ``masked_fill``).
        grid: path of the attribute that holds (rows, cols) of its keys, for the patterns "block" and "cross"; None: its
            keys are the model's patches, or if it is a window that is not known.
        num_prefix_tokens: keys before the patches, where this class differs from what its model says.
        fused: it calls SDPA although it has no ``fused_attn`` to say so; only the handle's table needs to know.
        selects_keys: its forward is known so well that keys and values of dropped tokens need not be computed, see
            ``token_selection.py``.
        own_dropout: attributes that may hold the module's own attention dropout, a rate or an nn.Dropout.
    """

    kind: str = "self"
    routes_softmax: bool = False
    maps_per_head: int = 1
    layout: str = "bh"
    one_mask: bool = False
    window_mask: tuple[int, str] | None = None
    window_mask_value: float | None = None
    grid: str | None = None
    num_prefix_tokens: int | None = None
    fused: bool = False
    selects_keys: bool = False
    own_dropout: tuple[str, ...] = ("attn_drop", "attn_drop_p")
