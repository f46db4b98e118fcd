"""Which truth a prediction finds, and which of the predictions that find the same is right: the surest."""

import numpy as np

from dropkey.tasks.interaction.metrics.boxes import Array

__all__ = ["best_candidate", "first_of_each", "joined"]


def joined(keys: Array, sorted_keys: Array) -> tuple[Array, Array]:
    """Return all (row of ``keys``, row of ``sorted_keys``) with equal keys, as two arrays in the order of the first."""
    start, stop = np.searchsorted(sorted_keys, keys, "left"), np.searchsorted(sorted_keys, keys, "right")
    counts = stop - start
    rows = np.repeat(np.arange(len(keys)), counts)
    within = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
    return rows, np.repeat(start, counts) + within


def best_candidate(rows: Array, candidates: Array, overlaps: Array, count: int) -> tuple[Array, Array]:
    """Return for each of ``count`` rows the candidate of largest overlap, the first of equals, and that overlap.

    Args:
        rows: (M,) in rising order: which row a candidate is for.
        candidates: (M,) indices.
        overlaps: (M,).
        count: number of rows.

    Returns:
        (count,) candidates, -1 where there is none, and (count,) overlaps, 0 there.
    """
    best, overlap = np.full(count, -1), np.zeros(count)
    if len(rows):
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        largest = np.maximum.reduceat(overlaps, starts)
        is_largest = np.flatnonzero(overlaps == np.repeat(largest, np.diff(starts, append=len(rows))))
        _, first = np.unique(rows[is_largest], return_index=True)
        best[rows[starts]], overlap[rows[starts]] = candidates[is_largest[first]], largest
    return best, overlap


def first_of_each(found: Array, scores: Array, capacities: Array) -> Array:
    """Say which predictions are right: of those that find the same truth, the surest; all others are duplicates.

    Args:
        found: (N,) which truth a prediction finds, -1 for none.
        scores: (N,).
        capacities: how often each truth may be found; more than once where the same truth is listed several times.
    """
    right = np.zeros(len(found), dtype=bool)
    order = np.lexsort((-scores, found))
    order = order[found[order] >= 0]
    groups = found[order]
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    rank = np.arange(len(groups)) - np.repeat(starts, np.diff(starts, append=len(groups)))
    right[order] = rank < capacities[groups]
    return right
