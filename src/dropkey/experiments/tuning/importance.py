"""Which options made the difference between the trials of a search."""

from dropkey.experiments.tuning.search import Search
from dropkey.runs.options import flag

__all__ = ["importance_of", "in_sentences"]


def importance_of(search: Search) -> dict[str, dict[str, float]]:
    """Return each option's share of the spread between finished trials: over all, and over those with a regularizer.

    Left out where too few trials have ended to say so.
    """
    trials = [trial for trial in search.trials.all() if trial.state == "finished"]
    names = [dimension.option for dimension in search.space if dimension.option != "window_size"]
    shared = [name for name in names if all(name in trial.options for trial in trials)]
    groups = {"all trials": shared}
    if shared != names:  # of those with a regularizer, all have one
        groups["trials with a regularizer"] = [name for name in names if name != "regularizer"]
    found = {group: search.trials.importance(options) for group, options in groups.items()}
    return {group: shares for group, shares in found.items() if shares}


def in_sentences(importance: dict[str, dict[str, float]]) -> list[str]:
    """Return what is printed, a line for each group of trials."""
    return [
        f"importance over {group}: {', '.join(f'{flag(name)} {share:.0%}' for name, share in shares.items())}"
        for group, shares in importance.items()
    ]
