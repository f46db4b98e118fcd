"""``dropkey audit``."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dropkey.cli.exit_codes import DONE, FOUND
from dropkey.cli.named import NAME_HELP, run_folder_of
from dropkey.cli.options import Parser, add_fields, values_of
from dropkey.errors import ArgumentError, first_line
from dropkey.tasks.config import check_ranges, option, parse_model_kwargs

if TYPE_CHECKING:
    from torch import nn

    from dropkey.diagnostics.audit.result import Audit

__all__ = ["AuditConfig", "run"]

_DESCRIPTION = (
    "Run a model and list every dropout, drop path, attention dropout and DropKey in it: whether it acts in training "
    "and is silent in evaluation, and at which measured rate, against the rate that its attribute states. Exit code 1 "
    "if anything does not do what it says."
)


@dataclasses.dataclass(frozen=True)
class AuditConfig:
    """Options of ``dropkey audit``."""

    model_kwargs: str | None = option(
        None, "arguments for the constructor of a timm model, whose rates are 0 by default: drop_path_rate=0.1"
    )
    img_size: int | None = option(None, "side of the input in pixels; by default the model's own", at_least=1)
    batch_size: int = option(4, "images or videos", at_least=2)
    seed: int = option(0, "seed of weights and random numbers", at_least=0)
    data_dir: str | None = option(None, "folder of the images of a run, if they have moved")

    def __post_init__(self) -> None:
        check_ranges(self)
        self.constructor_arguments()

    def constructor_arguments(self) -> dict[str, Any]:
        """Return what ``model_kwargs`` says."""
        return parse_model_kwargs(self.model_kwargs, allowed=["drop_path_rate"])


def run(arguments: Sequence[str]) -> int:
    """Audit the model of that name, or what a run has trained, and print the table."""
    parser = Parser("dropkey audit", _DESCRIPTION)
    parser.add_argument("name", type=str, help=NAME_HELP)
    add_fields(parser, AuditConfig)
    options = parser.read(arguments)
    config = AuditConfig(**values_of(AuditConfig, options))

    from dropkey.data.seeds import seed_all

    seed_all(config.seed, "audit")
    title, model, positional, keyword = _named(options["name"], config)
    audit = _audit(title, model, positional, keyword)
    print(title, audit, sep="\n")
    if not audit.findings:
        print("Nothing in it drops: its rates are all 0. Constructors of timm take rates by --model-kwargs.")
    return DONE if audit.ok else FOUND


def _named(name: str, config: AuditConfig) -> tuple[str, "nn.Module", tuple[Any, ...], dict[str, Any]]:
    """Return what was built, in words, and the arguments of its forward."""
    from dropkey.catalogue import by_name

    run_folder = run_folder_of(name)
    if run_folder is not None:
        if config.model_kwargs is not None or config.img_size is not None:
            raise ArgumentError(f"--model-kwargs and --img-size are not for the run in {name}, which has its own")
        from dropkey.tasks.trained import load_run

        trained = load_run(run_folder, "last", config.data_dir)
        trained.data.batch_size = max(1, config.batch_size // 2)  # evaluation takes twice the batch of training
        images = next(iter(trained.data.val_dataloader()[0]))[0]
        title = f"{trained.config.model} as trained in {name}, on images {tuple(images.shape)}"
        return title, trained.network, (images,), {}
    if config.data_dir is not None:
        raise ArgumentError(f"--data-dir is for the folder of a run, which {name} is not")
    if config.model_kwargs is None:
        trial = by_name.build(name, config.img_size, config.batch_size)
    else:
        short, kwargs = name.removeprefix("timm:"), config.constructor_arguments()
        trial = by_name.build_timm(short, config.img_size, config.batch_size, **kwargs)
    return str(trial), trial.model, *trial.arguments()


def _audit(title: str, model: "nn.Module", positional: tuple[Any, ...], keyword: dict[str, Any]) -> "Audit":
    from dropkey.diagnostics.audit.run import audit

    try:
        return audit(model, *positional, **keyword)
    except Exception as error:
        remedy = "try another --img-size or --batch-size"
        raise ArgumentError(f"{title} does not run; {remedy}: {first_line(error)}") from error
