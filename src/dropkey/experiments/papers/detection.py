"""DropKey in a detector."""

from typing import Any

from dropkey.experiments.experiment import Experiment, Table
from dropkey.experiments.papers.arms import NONE, dropkey, dropout
from dropkey.experiments.papers.detr_recipe import DETR_RECIPE
from dropkey.experiments.scales import Scale

__all__ = ["detection"]

_SHARED: dict[str, dict[str, Any]] = {
    "small": {"data": "digit_scenes", "threads": 1},
    "gpu": {"data": "digit_scenes", "epochs": 30},
    "paper": {
        **DETR_RECIPE,
        "data": "coco",
        "data_dir": "data/coco",
        "mend_boxes": True,
        "cache_mb": 0,
        "pretrained": True,
        "where": "encoder",
    },
}


def detection(scale: Scale, data: str, data_dir: str) -> Experiment:
    """None, dropout and DropKey in a detector of DETR's family.

    Claim: DropKey raises the average precision of DETR on COCO from 41.9 to 42.9, dropout to 42.2 (DropKey, CVPR 2023;
    second-hand). Here: a small D-FINE on scenes of handwritten digits, from nothing, with the default recipe.

    Small: 9 runs of about four minutes on one core. ``dropkey experiment detection``; at the paper's scale
    ``--dry-run`` says what it takes.
    """
    rows = [NONE, dropout(0.1), dropkey(0.1)]
    return Experiment(
        [Table("Against no regularizer", rows)], _SHARED[scale.name], seeds=3, task="detection", pool="detection"
    )
