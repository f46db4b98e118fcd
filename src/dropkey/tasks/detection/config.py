"""Options of a detection run."""

import dataclasses

from dropkey.data.detection_sources import DETECTION_SOURCES
from dropkey.errors import ArgumentError
from dropkey.runs.config import RunConfig
from dropkey.runs.numbers import ClosedUnitInterval, NonNegative
from dropkey.runs.options import one_of, option
from dropkey.runs.regularizer_options import PartOptions
from dropkey.tasks.detection.model_input import parse_img_size
from dropkey.tasks.detection.presets import PRESETS

__all__ = ["DetectionConfig", "DetectorConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectorConfig(PartOptions, RunConfig):
    """Options of every task with a detector of transformers."""

    flip: float = option(0.0, "share of training images that are mirrored", group="data", kind=ClosedUnitInterval)
    photometric: float = option(
        0.0, "share of training images with other brightness, contrast and hue", group="data", kind=ClosedUnitInterval
    )
    zoom_out: float = option(
        0.0,
        "share of training images put onto a canvas of up to twice their sides",
        group="data",
        kind=ClosedUnitInterval,
    )
    iou_crop: float = option(
        0.0, "share of training images that are cut around some of their boxes", group="data", kind=ClosedUnitInterval
    )
    cache_mb: float = option(
        2048.0, "megabytes of decoded images that are kept in memory", group="data", kind=NonNegative
    )

    model: str = option(
        "d_fine_mini",
        f"{', '.join(PRESETS)}, a folder with the config.json of a detector of transformers, or a name on the hub",
        group="model",
        takes="NAME",
    )
    img_size: str = option(
        "128",
        "size of the model's input in pixels, one side or HEIGHTxWIDTH; models that keep the shape of images (detr and "
        "the like) take it for the shorter and the longer side",
        group="model",
        takes="SIZE",
    )
    pretrained: bool = option(
        False,
        "take configuration and weights from the hub (downloaded); with detr_r50, the weights of its backbone",
        group="model",
    )
    weights: str = option(
        "",
        "start from these local weights: the folder of a run, a folder with model.safetensors, or a file (no code in "
        "it is run)",
        group="model",
        takes="PATH",
    )

    backbone_lr: float = option(
        0.0, "peak rate of the backbone's weights; 0 for that of the others", group="optimization", kind=NonNegative
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_img_size(self.img_size)
        if self.pretrained and self.weights:
            raise ArgumentError("--pretrained and --weights are two sources of weights: leave one out")

    @property
    def sides(self) -> tuple[int, int]:
        """(rows, cols) of the input."""
        return parse_img_size(self.img_size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionConfig(DetectorConfig):
    """Options of ``dropkey train --task detection``: a detector of transformers on images with boxes."""

    task: str = option("detection", "what is trained")
    data: str = option(
        "digit_scenes", f"source of the images: {', '.join(DETECTION_SOURCES)}", group="data", takes="NAME"
    )
    data_dir: str = option(
        "",
        "folder of the images; for --data coco: annotations/instances_{train,val}*.json and the images; for --data "
        "yolo: data.yaml, images/ and labels/",
        group="data",
        takes="DIR",
        when=(one_of("data", "coco", "yolo"),),
    )
    mend_boxes: bool = option(
        False,
        "leave out boxes without area and cut those that reach out of their image, instead of refusing them",
        group="data",
        when=(one_of("data", "coco", "yolo"),),
    )
