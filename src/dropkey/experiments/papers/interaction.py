"""DropKey in a detector of interactions."""

from typing import Any

from dropkey.experiments.experiment import Experiment, Table
from dropkey.experiments.papers.arms import NONE, dropkey, dropout
from dropkey.experiments.papers.detr_recipe import DETR_RECIPE
from dropkey.experiments.scales import Scale

__all__ = ["interaction"]

_SHARED: dict[str, dict[str, Any]] = {
    "small": {"data": "digit_pairs", "threads": 1},
    "gpu": {"data": "digit_pairs", "epochs": 30},
    "paper": {
        **DETR_RECIPE,
        "data": "hico_det",
        "data_dir": "data/hico_20160224_det",
        "broken": "skip",
        "heads": "qpic",
        "pretrained": True,
        "photometric": 0.5,
        "iou_crop": 0.5,
    },
}


def interaction(scale: Scale, data: str, data_dir: str) -> Experiment:
    """None, dropout and DropKey in a model that finds who does what with which object.

    Claim: DropKey raises QPIC's mean average precision on HICO-DET from 32.42 to 33.21 (DropKey, CVPR 2023; with which
    backbone is not clear). Here: pairs of handwritten digits, from nothing, with the default recipe. At the paper's
    scale the backbone alone is pretrained; QPIC begins with a DETR trained on COCO: see examples/qpic_hico_det.yaml.

    Small: 9 runs of about ten minutes on one core. ``dropkey experiment interaction``; at the paper's scale
    ``--dry-run`` says what it takes.
    """
    rows = [NONE, dropout(0.1), dropkey(0.1)]
    return Experiment(
        [Table("Against no regularizer", rows)], _SHARED[scale.name], seeds=3, task="interaction", pool="interaction"
    )
