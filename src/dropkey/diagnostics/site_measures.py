"""All measures of one attention call."""

import torch
from torch import Tensor

from dropkey.diagnostics.measures.distance import attention_distance
from dropkey.diagnostics.measures.rank import effective_rank
from dropkey.diagnostics.measures.sharpness import entropy, peak
from dropkey.diagnostics.measures.similarity import head_similarity
from dropkey.diagnostics.measures.sinks import prefix_share, strongest_sink
from dropkey.diagnostics.token_grid import TokenGrid

__all__ = ["MEASURES", "measured"]

# Name of each measure, with its unit or range as axes of figures show it.
MEASURES = {
    "entropy": "entropy (nats)",
    "peak": "peak weight",
    "distance": "attention distance (patches)",
    "head_similarity": "similarity of heads (cosine)",
    "effective_rank": "effective rank",
    "prefix_share": "share on prefix tokens",
    "sink_share": "share on the strongest sink",
    "sink_value_norm": "norm of the sink's value / mean norm",
}


def measured(
    attn: Tensor, pooled: Tensor, value: Tensor | None, queries: TokenGrid, keys: TokenGrid
) -> dict[str, Tensor]:
    """Return every measure of maps, float32 (B, H) on the CPU; NaN where it is not defined.

    Args:
        attn: (B, H, Nq, Nk).
        pooled: the same maps, pooled: the effective rank is that of these, since its time is cubic.
        value: (B, H, Nk, D), if known.
        queries: where the queries lie.
        keys: where the keys lie.
    """
    nothing = attn.new_full(attn.shape[:2], torch.nan)
    lies_on_grid = keys.size is not None and queries == keys
    sink = strongest_sink(attn, value)
    results = {
        "entropy": entropy(attn),
        "peak": peak(attn),
        "distance": attention_distance(attn, keys.size, keys.num_prefix) if lies_on_grid and keys.size else nothing,
        "head_similarity": head_similarity(attn),
        "effective_rank": effective_rank(pooled),
        "prefix_share": prefix_share(attn, keys.num_prefix) if keys.size is not None else nothing,
        "sink_share": sink.share,
        "sink_value_norm": nothing if sink.value_norm is None else sink.value_norm,
    }
    return {name: values.float().cpu() for name, values in results.items()}
