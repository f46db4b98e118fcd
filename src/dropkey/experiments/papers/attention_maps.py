"""What regularizers do to attention maps."""

from dropkey.experiments.experiment import Experiment, Table
from dropkey.experiments.papers.arms import NONE, dropkey, dropout
from dropkey.experiments.readings.attention import Attention, Change
from dropkey.experiments.readings.occlusion import Occlusion
from dropkey.experiments.scales import Scale

__all__ = ["attention_maps"]


def attention_maps(scale: Scale, data: str, data_dir: str) -> Experiment:
    """Entropy, distance and peak weight of attention, and accuracy with half of the patches hidden.

    Claim: DropKey penalizes high attention, so maps are spread wider: their entropy rises more than with dropout, in
    every head, and models rest on more than a few patches (DropKey, CVPR 2023).

    The change is from the first look in training to the last, on two validation images; all else is of the trained
    model on 64 images spread over the validation data, occlusion on all of them.

    Small: the runs of regularizers, and five minutes on one core to look at them. ``dropkey experiment
    attention_maps``; at the paper's scale ``--dry-run`` says what it takes.
    """
    ratio = scale.drop_ratio
    rows = [NONE, dropout(ratio), dropout(ratio, renormalized=True), dropkey(ratio)]
    readings = (Attention(), Change(), Occlusion(0.5))
    return Experiment(
        [Table("Against no regularizer", rows)], scale.options(data, data_dir), seeds=6, readings=readings
    )
