"""How to enter one attention class: what an adapter says of it."""

from dataclasses import dataclass

__all__ = ["Entry"]


@dataclass(frozen=True)
class Entry:
    """What is special about an attention class.

    Args:
        kind: what the handle's table calls it.
        routes_softmax: its forward may compute ``softmax(logits, dim=-1)`` itself, over (B, maps, Nq, Nk).
        maps_per_head: softmax maps per head that share one mask.
    """

    kind: str = "self"
    routes_softmax: bool = False
    maps_per_head: int = 1
