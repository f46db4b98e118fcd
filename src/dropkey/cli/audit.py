"""``dropkey audit``."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dropkey.cli.exit_codes import DONE, FOUND
from dropkey.cli.named import NAME_HELP, first_images, run_folder_of
from dropkey.cli.options import Parser
from dropkey.errors import ArgumentError, first_line
from dropkey.runs.numbers import NonNegativeInt, PositiveInt, Share
from dropkey.runs.options import Options, When, option, refuse_idle

if TYPE_CHECKING:
    from torch import nn

    from dropkey.diagnostics.audit.result import Audit
    from dropkey.runs.run_folder import RunFolder

__all__ = ["AuditOptions", "run"]

Audited = tuple[str, "nn.Module", tuple[Any, ...], dict[str, Any]]  # in words, and the arguments of its forward

_DESCRIPTION = (
    "Run a model and list every dropout, drop path, attention dropout and DropKey in it: whether it acts in training "
    "and is silent in evaluation, and at which measured rate, against the rate that its attribute states. Exit code 1 "
    "if anything does not do what it says."
)


_A_MODEL = When("audited", "the name of a model", lambda audited: audited == "a model", is_flag=False)
_A_RUN = When("audited", "a run", lambda audited: audited == "a run", is_flag=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditOptions(Options):
    """Options of ``dropkey audit``; ``audited`` is "a run" or "a model"."""

    audited: str = "a model"
    model_kwargs: str = option(
        "",
        "arguments for the constructor of a timm model, whose rates are 0 by default: drop_rate=0.1 attn_drop_rate=0.1",
        group="model",
        takes="NAME=VALUE",
        several=",".join,
        when=(_A_MODEL,),
    )
    drop_path: float = option(0.0, "rate of drop path of a timm model", group="model", kind=Share, when=(_A_MODEL,))
    img_size: int = option(
        0,
        "side of the input in pixels",
        group="model",
        kind=NonNegativeInt,
        shown="the model's own",
        when=(_A_MODEL,),
    )
    batch_size: int = option(4, "images or videos", kind=PositiveInt)
    seed: int = option(0, "seed of weights and random numbers", kind=NonNegativeInt)
    data_dir: str = option(
        "", "folder of the images, if they have moved", group="data", takes="DIR", shown="the run's", when=(_A_RUN,)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size < 2:
            raise ArgumentError(f"--batch-size must be 2 or more, got {self.batch_size}: of one image, a drop is all")


def run(arguments: Sequence[str]) -> int:
    """Audit the model of that name, or what a run has trained, and print the table."""
    parser = Parser("dropkey audit", _DESCRIPTION)
    parser.add_argument("name", type=str, help=NAME_HELP)
    parser.add_options(AuditOptions)
    given = parser.read(arguments)
    name, said = given.values["name"], given.of(AuditOptions)
    run_folder = run_folder_of(name)
    options = AuditOptions(audited="a model" if run_folder is None else "a run", **said)
    refuse_idle(options, [option for option in said if option in given.asked])

    from dropkey.data.seeds import seed_all

    seed_all(options.seed, "audit")
    title, model, positional, keyword = _named(name, options) if run_folder is None else _trained(run_folder, options)
    audit = _audit(title, model, positional, keyword)
    print(title, audit, sep="\n")
    if not audit.findings:
        print("Nothing in it drops: its rates are all 0. Constructors of timm take rates by --model-kwargs.")
    return DONE if audit.ok else FOUND


def _named(name: str, options: AuditOptions) -> Audited:
    from dropkey.catalogue import by_name
    from dropkey.tasks.classification.model_kwargs import parse_model_kwargs

    kwargs = parse_model_kwargs(options.model_kwargs)
    kwargs |= {"drop_path_rate": options.drop_path} if options.drop_path else {}
    if kwargs:
        trial = by_name.build_timm(name.removeprefix("timm:"), options.img_size or None, options.batch_size, **kwargs)
    else:
        trial = by_name.build(name, options.img_size or None, options.batch_size)
    return str(trial), trial.model, *trial.arguments()


def _trained(run_folder: "RunFolder", options: AuditOptions) -> Audited:
    from dropkey.tasks.loading import load_run

    trained = load_run(run_folder, data_dir=options.data_dir or None)
    images = first_images(trained.data, options.batch_size)
    title = f"{type(trained.network).__name__}, trained in {run_folder.root}, on images {tuple(images.shape)}"
    return title, trained.network, (images,), {}


def _audit(title: str, model: "nn.Module", positional: tuple[Any, ...], keyword: dict[str, Any]) -> "Audit":
    from dropkey.diagnostics.audit.run import audit

    try:
        return audit(model, *positional, **keyword)
    except Exception as error:
        remedy = "try another --img-size or --batch-size"
        raise ArgumentError(f"{title} does not run; {remedy}: {first_line(error)}") from error
