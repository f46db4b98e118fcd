"""DropKey in METRO."""

from typing import Any

from dropkey.experiments.experiment import Experiment, Table
from dropkey.experiments.papers.arms import NONE, dropkey, dropout
from dropkey.experiments.scales import Scale

__all__ = ["mesh"]

_SHARED: dict[str, dict[str, Any]] = {
    "small": {
        "data": "bodies",
        "bodies": 500,
        "img_size": 64,
        "epochs": 32,
        "evaluate_every": 8,
        "threads": 1,
        "save_seconds": 600.0,
    },
    "gpu": {"data": "bodies", "bodies": 40000, "epochs": 10},
    "paper": {"data": "humbi", "data_dir": "data/humbi", "model": "metro_hrnet_w64"},
}


def mesh(scale: Scale, data: str, data_dir: str) -> Experiment:
    """None, dropout and DropKey in METRO, which finds a body's surface in one picture.

    Claim: DropKey lowers METRO's MPVE, MPJPE and PA-MPJPE on HUMBI by 0.7, 0.5 and 0.4 mm (DropKey, CVPR 2023).
    Here: 500 sampled bodies, few enough that the model overfits, on pictures of 64 pixels for 32 epochs (992 steps).
    METRO itself drops attention weights at 0.1: that is the arm dropout 0.1.

    Small: 9 runs of about four minutes each on one core. ``dropkey experiment mesh``; at the paper's scale
    ``--dry-run`` says what it takes.
    """
    rows = [NONE, dropout(0.1), dropkey(0.1)]
    return Experiment([Table("Against no regularizer", rows)], _SHARED[scale.name], seeds=3, task="mesh", pool="mesh")
