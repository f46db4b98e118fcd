"""Options of a classification run."""

import dataclasses

from dropkey.data.sources import SOURCES
from dropkey.errors import ArgumentError
from dropkey.patterns import named_pattern
from dropkey.runs.config import RunConfig
from dropkey.runs.numbers import Magnitude, NonNegative, NonNegativeInt, Positive, Share
from dropkey.runs.options import one_of, option, other_than
from dropkey.runs.regularizer_options import ReAttentionOptions
from dropkey.tasks.classification.model_kwargs import parse_model_kwargs

__all__ = ["ClassificationConfig"]

_OF_PICTURES = one_of("data", "folder", *(name for name in SOURCES if name not in ("digits", "folder")))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationConfig(ReAttentionOptions, RunConfig):
    """Options of ``dropkey train``: a timm model on labeled images."""

    task: str = option("classification", "what is trained")
    data: str = option("digits", f"source of the images: {', '.join(SOURCES)}", group="data", takes="NAME")
    data_dir: str = option(
        "",
        "folder of the images; for --data folder: train/<class>/ and val/<class>/",
        group="data",
        when=(_OF_PICTURES,),
        takes="DIR",
    )
    train_per_class: int = option(
        0,
        "images of each class to train on, always the same; 0 for all",
        group="data",
        kind=NonNegativeInt,
    )
    val_share: float = option(
        0.0,
        "validate on this share of the training images, which are then not trained on; 0 for the source's own",
        group="data",
        kind=Share,
    )
    rand_augment: float = option(
        0.0, "magnitude of timm's RandAugment, up to 10; 0 for none", group="data", kind=Magnitude
    )
    color_jitter: float = option(
        0.0,
        "strength of random changes of brightness, contrast and saturation; 0 for none",
        group="data",
        kind=NonNegative,
    )
    random_erasing: float = option(0.0, "share of images with an erased rectangle", group="data", kind=Share)
    mirror: bool = option(
        True,
        "mirror every other training image; false where left and right make a difference",
        group="data",
        when=(_OF_PICTURES,),
    )
    random_crop: bool = option(
        True,
        "cut training images out at random places, small ones moved by up to an eighth of their side; false takes them "
        "as evaluation does",
        group="data",
        when=(_OF_PICTURES,),
    )
    mixup: float = option(0.0, "alpha of mixup; 0 for none", group="data", kind=NonNegative)
    cutmix: float = option(0.0, "alpha of cutmix; 0 for none", group="data", kind=NonNegative)

    model: str = option("vit_mini_patch2_8", "any timm model name", group="model", takes="NAME")
    model_kwargs: str = option(
        "",
        "extra arguments for the model's constructor: depth=24 embed_dim=96",
        group="model",
        takes="NAME=VALUE",
        several=",".join,
    )
    img_size: int = option(
        0, "side of the model's input in pixels", group="model", kind=NonNegativeInt, shown="the model's own"
    )
    pretrained: bool = option(False, "start from timm's pretrained weights (downloaded)", group="model")
    weights: str = option(
        "",
        "start from this local file (safetensors or torch; no code in it is run)",
        group="model",
        takes="FILE",
    )
    drop_path: float = option(
        0.0, "share of residual branches dropped in the last block, rising with depth", group="model", kind=Share
    )
    patch_drop: float = option(
        0.0, "share of patches that each training image loses before the first block", group="model", kind=Share
    )
    head_drop: float = option(0.0, "share of features dropped before the head in training", group="model", kind=Share)

    layer_decay: float = option(
        1.0, "factor on the rate for each block further from the head", group="optimization", kind=Positive
    )
    label_smoothing: float = option(
        0.0, "share of the target spread over all classes", group="optimization", kind=Share
    )
    consistency: float = option(
        0.0,
        "weight of R-Drop's loss: how much two passes over the same images differ; each step costs two passes; 0 for "
        "none",
        group="optimization",
        kind=NonNegative,
        when=(other_than("regularizer", "none"),),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_model_kwargs(self.model_kwargs)
        if self.pretrained and self.weights:
            raise ArgumentError("--pretrained and --weights are two sources of weights: leave one out")
        if (self.mixup or self.cutmix) and self.batch_size % 2:
            raise ArgumentError(f"--mixup and --cutmix pair images: --batch-size {self.batch_size} must be even")
        if self.patch_drop and self.regularizer == "dropkey" and named_pattern(self.pattern).needs_grid:
            raise ArgumentError(
                f"--pattern {self.pattern} needs every patch and --patch-drop leaves some out: choose one of them"
            )
