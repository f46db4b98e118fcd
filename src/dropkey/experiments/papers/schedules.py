"""How the drop ratio goes with depth."""

from dropkey.experiments.experiment import Experiment, Table
from dropkey.experiments.papers.arms import dropkey, dropout
from dropkey.experiments.scales import Scale

__all__ = ["schedules"]


def schedules(scale: Scale, data: str, data_dir: str) -> Experiment:
    """A drop ratio that falls with depth against one that stays and one that rises.

    Claim: the falling schedule is best, for DropKey and for dropout (DropKey, CVPR 2023). Published for T2T-19 and a
    ratio of 0.3, CIFAR-10 and CIFAR-100: rising 96.6 and 77.2, constant 97.4 and 78.6, falling 97.6 and 79.2.

    The mean ratio over the blocks of a constant schedule is twice that of the other two, as in the paper, where the
    same ratio names all three.

    Small: 36 runs of about 100 seconds on one core of an AMD EPYC, 12 of them those of regularizers. ``dropkey
    experiment schedules``; at the paper's scale ``--dry-run`` says what it takes.
    """
    ratio = scale.drop_ratio
    tables = []
    for name, row in (("DropKey", dropkey), ("Dropout", dropout)):
        rows = [
            row(ratio, "falling"),
            row(ratio, "constant", schedule="constant"),
            row(ratio, "rising", schedule="linear_growth"),
        ]
        tables.append(Table(f"{name} {ratio:g}, against the falling schedule", rows))
    return Experiment(tables, scale.options(data, data_dir), seeds=6)
