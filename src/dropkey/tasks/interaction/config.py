"""Options of an interaction run."""

import dataclasses
from typing import Literal

from dropkey.data.pair_sources import PAIR_SOURCES
from dropkey.runs.options import one_of, option
from dropkey.tasks.detection.config import DetectorConfig
from dropkey.tasks.detection.presets import PRESETS

__all__ = ["InteractionConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class InteractionConfig(DetectorConfig):
    """Options of ``dropkey train --task interaction``: those of detection, with pairs instead of boxes."""

    task: str = option("interaction", "what is trained")
    data: str = option("digit_pairs", f"source of the images: {', '.join(PAIR_SOURCES)}", group="data", takes="NAME")
    data_dir: str = option(
        "",
        "folder of the images; for --data hico_det: annotations/trainval_hico.json and so on, or "
        "instances_train2015.json; for --data vcoco: annotations/trainval_vcoco.json, or instances_vcoco_trainval.json",
        group="data",
        takes="DIR",
        when=(one_of("data", "hico_det", "vcoco"),),
    )
    broken: Literal["refuse", "skip"] = option(
        "refuse",
        "pairs that point to no box, subjects that are no person, images that are not there: an error, or left out and "
        "counted",
        group="data",
        when=(one_of("data", "hico_det", "vcoco"),),
    )
    model: str = option(
        "d_fine_mini",
        f"the detector: {', '.join(PRESETS)}, a folder with the config.json of a detector of transformers, or a name "
        "on the hub",
        group="model",
        takes="NAME",
    )
    heads: Literal["pair", "qpic"] = option(
        "pair",
        "pair: a head pairs what the detector finds; qpic: each query finds a pair, as in QPIC (detr and d_fine)",
        group="model",
    )
