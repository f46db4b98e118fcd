"""torch.nn's attention, and with it nn.Transformer, its layers, and whatever else is built on nn.MultiheadAttention.

In evaluation mode an encoder layer may run around its attention module altogether (torch's fast path): nothing acts
there, so nothing is lost. Who acts in evaluation mode switches it off: ``torch.backends.mha.set_fastpath_enabled``.
"""

from dropkey.adapters.entry import Entry

__all__ = ["TORCH_CLASSES"]

TORCH_CLASSES: dict[str, Entry] = {
    # SDPA, or with need_weights a softmax over (batch * heads, queries, keys).
    "torch.nn.modules.activation.MultiheadAttention": Entry(
        routes_softmax=True, layout="g", own_dropout=("dropout",), fused=True
    ),
}
