"""Which keys are dropped together."""

from dropkey.experiments.experiment import Experiment, Table
from dropkey.experiments.papers.arms import dropkey
from dropkey.experiments.scales import Scale

__all__ = ["structured"]


def structured(scale: Scale, data: str, data_dir: str) -> Experiment:
    """Keys dropped one by one against blocks, crosses, columns and whole tokens.

    Claim: structured patterns are no better; block and cross are worse than single keys at every size of window tried
    (DropKey, CVPR 2023; the sizes are not published). Column and token are not in the paper: they draw once for all
    queries, and token once for all heads.

    Small: 21 runs of about 100 seconds on one core, 3 of them those of regularizers. ``dropkey experiment
    structured``; at the paper's scale ``--dry-run`` says what it takes.
    """
    ratio = scale.drop_ratio
    rows = [
        dropkey(ratio, "element"),
        dropkey(ratio, "block, window 3", pattern="block", window_size=3),
        dropkey(ratio, "block, window 5", pattern="block", window_size=5),
        dropkey(ratio, "cross, window 3", pattern="cross", window_size=3),
        dropkey(ratio, "cross, window 5", pattern="cross", window_size=5),
        dropkey(ratio, "column", pattern="column"),
        dropkey(ratio, "token", pattern="token"),
    ]
    return Experiment([Table("Against single keys", rows)], scale.options(data, data_dir), seeds=3)
