"""``dropkey diagnose``."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from dropkey.cli.exit_codes import DONE
from dropkey.cli.named import NAME_HELP, run_folder_of
from dropkey.cli.options import Parser, add_fields, values_of
from dropkey.errors import ArgumentError, DropKeyError, first_line
from dropkey.tasks.config import check_ranges, option

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dropkey.data.augmentation import ImageFormat
    from dropkey.diagnostics.report import Report

__all__ = ["DiagnoseConfig", "run"]

_DESCRIPTION = (
    "Look at the attention of a model on some images: print measures of every block, and write a page that shows where "
    "each head of each block looks. With --beside, two models side by side on the same images."
)
_NUM_IMAGES = 4  # of a run's own


@dataclasses.dataclass(frozen=True)
class DiagnoseConfig:
    """Options of ``dropkey diagnose``."""

    beside: str | None = option(None, "another NAME to show beside the first on the same images")
    weights: str | None = option(None, "weights file of a timm model; without one it is untrained")
    pretrained: bool = option(False, "take timm's pretrained weights")
    checkpoint: Literal["last", "best"] = option("last", "which checkpoint of a run")
    data_dir: str | None = option(None, "folder of the images of a run, if they have moved")
    img_size: int | None = option(None, "side of the input in pixels; by default the model's own", at_least=1)
    seed: int = option(0, "seed of the weights of an untrained model", at_least=0)
    output: str = option("attention.html", "file of the page")

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.weights and self.pretrained:
            raise ArgumentError("--pretrained and --weights are two sources of weights: leave one out")


class _Looked(NamedTuple):
    """A model to look at.

    Args:
        label: what the page calls it.
        model: the model.
        image_format: what it takes.
        images: of its own, (B, C, height, width), if it has any.
    """

    label: str
    model: "nn.Module"
    image_format: "ImageFormat"
    images: "Tensor | None" = None


def run(arguments: Sequence[str]) -> int:
    """Diagnose one model or two, print the measures and write the page."""
    parser = Parser("dropkey diagnose", _DESCRIPTION)
    parser.add_argument("name", type=str, help=NAME_HELP)
    parser.add_argument(
        "images", type=str, nargs="*", default=[], help=f"image files; a run has its own: the first {_NUM_IMAGES}"
    )
    add_fields(parser, DiagnoseConfig)
    options = parser.read(arguments)
    config = DiagnoseConfig(**values_of(DiagnoseConfig, options))
    if not Path(config.output).parent.is_dir():
        raise ArgumentError(f"--output {config.output}: there is no folder {Path(config.output).parent}")

    from dropkey.data.seeds import seed_all

    seed_all(config.seed, "diagnose")
    names = [options["name"], *([config.beside] if config.beside else [])]
    looked = [_looked(name, config) for name in names]
    files = [Path(name) for name in options["images"]]
    reports = {label: _report(one, files, looked[0]) for label, one in zip(_labels(looked), looked, strict=True)}
    for report in reports.values():
        print(report, end="\n\n")
    print(f"open {_save(reports, files, looked[0], config)} in a browser")
    return DONE


def _looked(name: str, config: DiagnoseConfig) -> _Looked:
    run_folder = run_folder_of(name)
    if run_folder is None:
        return _named(name, config)
    from dropkey.tasks.trained import load_run

    trained = load_run(run_folder, config.checkpoint, config.data_dir)
    trained.data.batch_size = max(1, _NUM_IMAGES // 2)  # evaluation takes twice the batch of training
    images = next(iter(trained.data.val_dataloader()[0]))[0]
    return _Looked(name, trained.network, trained.data.image_format, images[:_NUM_IMAGES])


def _named(name: str, config: DiagnoseConfig) -> _Looked:
    import timm

    from dropkey.catalogue import by_name
    from dropkey.data.augmentation import ImageFormat
    from dropkey.tasks.networks import build_network, image_format_of
    from dropkey.tasks.weights import load_weights

    short = name.removeprefix("timm:")
    if not timm.is_model(short):
        if config.weights or config.pretrained:
            raise ArgumentError(f"--weights and --pretrained are for timm models, which {name} is not")
        trial = by_name.build(name, config.img_size, 1)
        sizes = [value.shape[-1] for value in trial.inputs.values() if value.dim() == 4]
        if not sizes:
            raise ArgumentError(f"{name} takes no images")
        return _Looked(f"{name}, untrained", trial.model, ImageFormat(sizes[0]))
    network = build_network(short, 0, img_size=config.img_size, pretrained=config.pretrained)
    if config.weights:
        load_weights(network, Path(config.weights))
    label = name if config.weights or config.pretrained else f"{name}, untrained"
    return _Looked(label, network, image_format_of(network, config.img_size))


def _labels(looked: Sequence[_Looked]) -> list[str]:
    labels = [one.label for one in looked]
    return labels if len(set(labels)) == len(labels) else [f"{label} ({n})" for n, label in enumerate(labels, 1)]


def _report(one: _Looked, files: Sequence[Path], first: _Looked) -> "Report":
    import torch

    from dropkey.data.augmentation import clean_transform
    from dropkey.data.folder import read_image
    from dropkey.diagnostics.diagnose import diagnose

    if files:
        transform = clean_transform(one.image_format)
        images = torch.stack([transform(read_image(file)) for file in files])
    elif first.images is None:
        raise ArgumentError(f"{first.label} has no images of its own: name some image files")
    elif one.image_format != first.image_format:
        raise ArgumentError(f"{one.label} takes other images than {first.label}: name some image files")
    else:
        images = first.images
    try:
        return diagnose(one.model, images)
    except DropKeyError:
        raise
    except Exception as error:
        raise ArgumentError(f"{one.label} does not run; try another --img-size: {first_line(error)}") from error


def _save(reports: "dict[str, Report]", files: Sequence[Path], first: _Looked, config: DiagnoseConfig) -> Path:
    from dropkey.diagnostics.page.page import save

    mean, std = first.image_format.mean, first.image_format.std
    names = [file.name for file in files] or None
    return save(config.output, reports, names=names, mean=mean, std=std)
