"""Options of the task: the shared ones, with defaults of its own, and one more."""

import dataclasses

from dropkey.runs.config import RunConfig
from dropkey.runs.numbers import Positive, PositiveInt
from dropkey.runs.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class BrightnessConfig(RunConfig):
    task: str = option("brightness", "what is trained")
    data: str = option("noise", "source of the images: noise", group="data")
    num_images: int = option(60, "training images; a third as many validate", group="data", kind=PositiveInt)
    model: str = option("vit_mini_patch2_8", "any timm model of 8 x 8 pixels", group="model")
    huber_delta: float = option(1.0, "where the loss turns linear", group="optimization", kind=Positive)
