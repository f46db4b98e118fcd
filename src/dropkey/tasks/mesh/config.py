"""Options of a mesh run."""

import dataclasses
from typing import Literal

from dropkey.runs.config import RunConfig
from dropkey.runs.numbers import NonNegative, PositiveInt, Share
from dropkey.runs.options import one_of, option
from dropkey.tasks.mesh.presets import MESH_TRANSFORMERS, PRESETS, named_preset
from dropkey.tasks.mesh.sources import SOURCES, check_source_name

__all__ = ["MeshConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig(RunConfig):
    """Options of ``dropkey train --task mesh``: METRO on pictures of bodies."""

    task: str = option("mesh", "what is trained")
    data: str = option("bodies", f"source of the bodies: {', '.join(SOURCES)}", group="data", takes="NAME")
    data_dir: str = option(
        "",
        "folder of the data, with subject_N/body/... as HUMBI has it",
        group="data",
        takes="DIR",
        when=(one_of("data", "humbi"),),
    )
    bodies: int = option(
        8000,
        "number of training bodies that are sampled",
        group="data",
        kind=PositiveInt,
        when=(one_of("data", "bodies"),),
    )
    rotation: float = option(0.0, "turn training pictures by up to this many degrees", group="data", kind=NonNegative)
    scale: float = option(0.0, "zoom training pictures by up to this share", group="data", kind=Share)
    color_noise: float = option(
        0.0, "brighten or darken each channel of training pictures by up to this share", group="data", kind=Share
    )

    model: str = option(
        "metro_mini", f"METRO of a size, or plain regression: {', '.join(PRESETS)}", group="model", takes="NAME"
    )
    img_size: int = option(128, "side of the pictures in pixels, 32 or more", group="model", kind=PositiveInt)
    pretrained: bool = option(False, "start the backbone from timm's pretrained weights (downloaded)", group="model")
    mask_ratio: float = option(
        0.3,
        "largest share of tokens that masked vertex modeling hides in training",
        group="model",
        kind=Share,
        when=(one_of("model", *MESH_TRANSFORMERS),),
    )
    dropout: float = option(
        0.0,
        "dropout of embeddings and of the outputs of attention and feed-forward",
        group="model",
        kind=Share,
        when=(one_of("model", *MESH_TRANSFORMERS),),
    )

    joint_loss: Literal["l1", "mse"] = option(
        "l1", "distance that the loss takes of joints: absolute, or squared as METRO does", group="optimization"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        named_preset(self.model)
        check_source_name(self.data)
