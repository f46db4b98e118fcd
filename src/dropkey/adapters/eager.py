"""Modules that compute their softmax in Python, eagerly, where no backend of ours runs."""

from torch import nn

from dropkey.adapters.entry import Entry

__all__ = ["computes_softmax"]


def computes_softmax(module: nn.Module, entry: Entry) -> bool:
    """Say whether a module computes its softmax in Python, as it is set now: no backend of ours runs there."""
    if not entry.routes_softmax or entry.fused:
        return False
    implementation = getattr(getattr(module, "config", None), "_attn_implementation", None)
    return implementation == "eager" if implementation else not getattr(module, "fused_attn", False)
