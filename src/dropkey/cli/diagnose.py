"""``dropkey diagnose``."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from dropkey.cli.exit_codes import DONE
from dropkey.cli.named import NAME_HELP, first_images, run_folder_of
from dropkey.cli.options import Parser
from dropkey.errors import ArgumentError, DropKeyError, first_line
from dropkey.runs.numbers import NonNegativeInt
from dropkey.runs.options import Options, When, flag, option, refuse_idle

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dropkey.data.augmentation import ImageFormat
    from dropkey.diagnostics.report import Report

__all__ = ["DiagnoseOptions", "run"]

_DESCRIPTION = (
    "Look at the attention of a model on some images: print measures of every block, and write a page that shows where "
    "each head of each block looks. With --beside, two models side by side on the same images; with --over-training, a "
    "run epoch by epoch."
)
_NUM_IMAGES = 4  # of a run's own


_A_RUN = When("looked_at", "a run", lambda looked_at: "a run" in looked_at, is_flag=False)
_A_MODEL = When("looked_at", "the name of a model", lambda looked_at: "a model" in looked_at, is_flag=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiagnoseOptions(Options):
    """Options of ``dropkey diagnose``; ``looked_at`` holds "a run", "a model", or both."""

    looked_at: frozenset[str] = frozenset(("a run", "a model"))
    beside: str = option("", "another NAME to show beside the first on the same images", takes="NAME")
    over_training: bool = option(
        False, "a run over its epochs, with a slider: the looks that dropkey train --attention-every has kept"
    )
    weights: str = option("", "weights of a timm model, which is untrained otherwise", group="model", takes="FILE")
    pretrained: bool = option(False, "take timm's pretrained weights (downloaded)", group="model")
    checkpoint: Literal["last", "best"] = option("last", "which checkpoint of a run", group="model", when=(_A_RUN,))
    data_dir: str = option(
        "",
        "folder of the images of a run, if they have moved",
        group="data",
        takes="DIR",
        shown="the run's",
        when=(_A_RUN,),
    )
    img_size: int = option(
        0, "side of the input in pixels", group="model", kind=NonNegativeInt, shown="the model's own"
    )
    seed: int = option(0, "seed of the weights of an untrained model", kind=NonNegativeInt, when=(_A_MODEL,))
    output: str = option("attention.html", "file of the page", takes="FILE")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights and self.pretrained:
            raise ArgumentError("--pretrained and --weights are two sources of weights: leave one out")
        defaults = DiagnoseOptions.__dataclass_fields__.items()
        idle = [flag(name) for name, field in defaults if getattr(self, name) != field.default]
        idle = [name for name in idle if name not in ("--over-training", "--output", "--looked-at")]
        if self.over_training and idle:
            raise ArgumentError(f"--over-training shows the looks that a run has kept: leave out {', '.join(idle)}")


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
    parser.add_options(DiagnoseOptions)
    given = parser.read(arguments)
    said = given.of(DiagnoseOptions)
    names = [given.values["name"], *([said["beside"]] if said.get("beside") else [])]
    kinds = frozenset("a model" if run_folder_of(name) is None else "a run" for name in names)
    config = DiagnoseOptions(looked_at=kinds, **said)
    refuse_idle(config, [option for option in said if option in given.asked])
    if not Path(config.output).parent.is_dir():
        raise ArgumentError(f"--output {config.output}: there is no folder {Path(config.output).parent}")

    from dropkey.data.seeds import seed_all
    from dropkey.runs.run_folder import check_writable

    check_writable(Path(config.output), b"<!doctype html")
    if config.over_training:
        return _over_training(given.values["name"], given.values.get("images", []), config.output)
    seed_all(config.seed, "diagnose")
    looked = [_looked(name, config) for name in names]
    files = [Path(name) for name in given.values.get("images", [])]
    reports = {label: _report(one, files, looked[0]) for label, one in zip(_labels(looked), looked, strict=True)}
    for report in reports.values():
        print(report, end="\n\n")
    print(f"open {_save(reports, files, looked[0], config)} in a browser")
    return DONE


def _over_training(name: str, images: Sequence[str], output: str) -> int:
    run_folder = run_folder_of(name)
    if run_folder is None or images:
        raise ArgumentError("--over-training shows the looks that a run has kept: name a run folder, and no images")
    from dropkey.diagnostics.page.page import save
    from dropkey.diagnostics.report_file import read_looks

    reports = read_looks(run_folder.root / "attention")
    if not reports:
        raise ArgumentError(f"{name} has kept no looks at attention: train it with --attention-every N")
    path = save(output, reports, title=f"Attention of {name} over its training", are_epochs=True)
    print(f"looks after {', '.join(reports)}\nopen {path} in a browser")
    return DONE


def _looked(name: str, options: DiagnoseOptions) -> _Looked:
    run_folder = run_folder_of(name)
    if run_folder is None:
        return _named(name, options)
    if options.weights or options.pretrained or options.img_size:
        raise ArgumentError(f"--weights, --pretrained and --img-size are not for {name}: a run has its own")
    from dropkey.tasks.loading import load_run

    trained = load_run(run_folder, options.checkpoint, options.data_dir or None)
    data: Any = trained.data
    return _Looked(name, trained.network, data.image_format, first_images(data, _NUM_IMAGES))


def _named(name: str, options: DiagnoseOptions) -> _Looked:
    import timm

    from dropkey.catalogue import by_name
    from dropkey.data.augmentation import ImageFormat
    from dropkey.models.timm_network import build_network
    from dropkey.models.weights import load_weights

    short = name.removeprefix("timm:")
    if not timm.is_model(short):
        if options.weights or options.pretrained:
            raise ArgumentError(f"--weights and --pretrained are for timm models, which {name} is not")
        trial = by_name.build(name, options.img_size or None, 1)
        sizes = [value.shape[-1] for value in trial.inputs.values() if value.dim() == 4]
        if not sizes:
            raise ArgumentError(f"{name} takes no images")
        return _Looked(f"{name}, untrained", trial.model, ImageFormat(sizes[0]))
    network = build_network(short, 0, img_size=options.img_size or None, pretrained=options.pretrained)
    if options.weights:
        load_weights(network, Path(options.weights))
    label = name if options.weights or options.pretrained else f"{name}, untrained"
    return _Looked(label, network, ImageFormat.of(network, options.img_size))


def _labels(looked: Sequence[_Looked]) -> list[str]:
    labels = [one.label for one in looked]
    return labels if len(set(labels)) == len(labels) else [f"{label} ({n})" for n, label in enumerate(labels, 1)]


def _report(one: _Looked, files: Sequence[Path], first: _Looked) -> "Report":
    import torch

    from dropkey.data.augmentation import clean_transform
    from dropkey.data.picture import read_image
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


def _save(reports: "dict[str, Report]", files: Sequence[Path], first: _Looked, config: DiagnoseOptions) -> Path:
    from dropkey.diagnostics.page.page import save

    mean, std = first.image_format.mean, first.image_format.std
    names = [file.name for file in files] or None
    return save(config.output, reports, names=names, mean=mean, std=std)
