"""``dropkey verify``."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropkey.cli.exit_codes import DONE
from dropkey.cli.named import NAME_HELP, run_folder_of
from dropkey.cli.options import Parser
from dropkey.errors import ArgumentError, first_line
from dropkey.runs.numbers import NonNegativeInt, PositiveInt
from dropkey.runs.options import option, refuse_idle
from dropkey.runs.regularizer_options import RegularizerOptions, build_dropkey, pattern_defaults

__all__ = ["VerifyOptions", "run"]

if TYPE_CHECKING:
    from dropkey.catalogue.family import Trial

_DESCRIPTION = "List the attention of a model and prove that DropKey acts on each site, in training only."


_DEFAULTS = {"drop_ratio": 0.3, "schedule": "constant"}  # so that every block drops keys
_LEFT_OUT = ("regularizer", "finetune_epochs")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifyOptions(RegularizerOptions):
    """Options of ``dropkey verify``."""

    img_size: int = option(
        0, "side of the input in pixels", group="model", kind=NonNegativeInt, shown="the model's own"
    )
    batch_size: int = option(4, "images or videos in the trial", kind=PositiveInt)
    seed: int = option(0, "seed of the weights and masks", kind=NonNegativeInt)


def run(arguments: Sequence[str]) -> int:
    """Apply DropKey to an untrained model of that name, and print the sites and what was proved of each."""
    parser = Parser("dropkey verify", _DESCRIPTION)
    parser.add_argument("name", type=str, help=NAME_HELP)
    parser.add_options(VerifyOptions, _DEFAULTS, without=_LEFT_OUT)
    given = parser.read(arguments)
    said = given.of(VerifyOptions)
    own = _of_run(given.values["name"])
    config = VerifyOptions(**{**_DEFAULTS, **own, **pattern_defaults(said), **said})
    refuse_idle(config, [name for name in said if name in given.asked])
    regularizer = build_dropkey(config)

    from dropkey.adapters.apply import apply
    from dropkey.data.seeds import seed_all

    seed_all(config.seed, "verify")
    trial = _trial(given.values["name"], config)
    _check_it_runs(trial)
    positional, keyword = trial.arguments()
    handle = apply(trial.model, regularizer, example=keyword or positional)
    if own:
        print("What acts is as in the run, unless options say otherwise; the weights are untrained.")
    print(trial, handle, sep="\n", end="\n\n")
    print(handle.verify(*positional, **keyword))
    return DONE


def _of_run(name: str) -> dict[str, Any]:
    """The options of DropKey in a run that was trained with it."""
    from dropkey.runs.run_folder import RunFolder
    from dropkey.tasks.registry import task_of

    folder = RunFolder(Path(name))
    if (folder.root / "config.json").exists() or not folder.holds_a_run:
        return {}
    saved = folder.read_config()
    config = task_of(saved).read(saved, str(folder.config_file))
    names = ("drop_ratio", "schedule", "pattern", "window_size", "top_share") if config.regularizer == "dropkey" else ()
    return {name: getattr(config, name) for name in names}


def _trial(name: str, config: VerifyOptions) -> "Trial":
    """The model of a run folder, or of any other name, and its inputs."""
    from dropkey.catalogue import by_name
    from dropkey.catalogue.family import Trial

    run_folder = run_folder_of(name)
    if run_folder is None:
        return by_name.build(name, config.img_size or None, config.batch_size)
    from dropkey.tasks.registry import task_of

    saved = run_folder.read_config()
    task = task_of(saved)
    size = {"img_size": config.img_size} if config.img_size else {}
    return Trial(*task.trial(task.read({**saved, **size}, str(run_folder.config_file)), config.batch_size))


def _check_it_runs(trial: "Trial") -> None:
    """Raise an ArgumentError if the untouched model cannot take its inputs; one without sites is refused elsewhere."""
    import torch

    from dropkey.adapters.discover import attention_modules

    if not attention_modules(trial.model):
        return
    positional, keyword = trial.arguments()
    try:
        with torch.no_grad():
            for training in (True, False):
                trial.model.train(training)(*positional, **keyword)
    except Exception as error:
        remedy = "try another --img-size or --batch-size"
        raise ArgumentError(f"{trial} does not run; {remedy}: {first_line(error)}") from error
