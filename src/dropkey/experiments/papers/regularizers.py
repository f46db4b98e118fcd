"""None, dropout in both forms, and DropKey."""

from dropkey.experiments.experiment import Experiment, Table
from dropkey.experiments.papers.arms import NONE, dropkey, dropout
from dropkey.experiments.scales import Scale

__all__ = ["regularizers"]


def regularizers(scale: Scale, data: str, data_dir: str) -> Experiment:
    """DropKey against dropout of attention weights and against no regularizer.

    Claim: dropping keys before the softmax is more accurate than dropping weights after it, and than nothing
    (DropKey, CVPR 2023). Published on ImageNet, best dropout and best DropKey: T2T-14 81.65 and 82.04, T2T-19 82.68
    and 82.94, VOLO-D1 84.35 and 84.53, CeiT-S 81.90 and 82.27, DeiT-B 81.91 and 82.25. One run each, no intervals.

    Ratios fall linearly with depth, as the paper has it. The paper does not say whether its dropout divides by the
    share that is kept (torch's) or renormalizes the row: both are here.

    Small: 36 runs of about 90 seconds on one core of an AMD EPYC. ``dropkey experiment regularizers``; at the
    paper's scale ``--dry-run`` says what it takes.
    """
    ratio = scale.drop_ratio
    rows = [
        NONE,
        dropout(ratio),
        dropout(ratio, renormalized=True),
        dropkey(ratio),
        dropkey(round(ratio / 3, 3)),
        dropkey(round(ratio * 2, 3)),
    ]
    return Experiment([Table("Against no regularizer", rows)], scale.options(data, data_dir), seeds=6)
