"""Looking at attention: maps of any model, measures on them, and reports."""

from dropkey.diagnostics.measures.distance import attention_distance
from dropkey.diagnostics.measures.rank import effective_rank
from dropkey.diagnostics.measures.rollout import class_rollout, rollout
from dropkey.diagnostics.measures.sharpness import entropy, peak
from dropkey.diagnostics.measures.similarity import (
    cross_layer_similarity,
    feature_similarity,
    head_similarity,
    similar_blocks,
)
from dropkey.diagnostics.measures.sinks import Sink, prefix_share, strongest_sink
from dropkey.diagnostics.relevance import class_relevance
from dropkey.diagnostics.window_search import window_places
from dropkey.diagnostics.windows import Places, WindowPlaces
from dropkey.ops.map_similarity import map_similarity

__all__ = [
    "Places",
    "Sink",
    "WindowPlaces",
    "attention_distance",
    "class_relevance",
    "class_rollout",
    "cross_layer_similarity",
    "effective_rank",
    "entropy",
    "feature_similarity",
    "head_similarity",
    "map_similarity",
    "peak",
    "prefix_share",
    "rollout",
    "similar_blocks",
    "strongest_sink",
    "window_places",
]
