"""``dropkey verify``."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dropkey.cli.exit_codes import DONE
from dropkey.cli.options import Parser, add_fields, values_of
from dropkey.errors import ArgumentError, RunError, first_line
from dropkey.tasks.config import (
    PATTERN_HELP,
    WINDOW_SIZE_HELP,
    TrainConfig,
    build_regularizer,
    check_ranges,
    option,
    parse_model_kwargs,
)

__all__ = ["VerifyConfig", "run"]

if TYPE_CHECKING:
    from dropkey.catalogue.family import Trial

_DESCRIPTION = "List the attention of a model and prove that DropKey acts on each site, in training only."
_NAME = (
    "model of timm, torchvision, transformers (vit, ViTModel) or torch.nn (nn.Transformer), with the library in front "
    "to choose one (torchvision:vit_b_16); folder with transformers' config.json; model on the hub; folder of a run"
)


@dataclasses.dataclass(frozen=True)
class VerifyConfig:
    """Options of ``dropkey verify``."""

    img_size: int | None = option(None, "side of the input in pixels; by default the model's own", at_least=1)
    drop_ratio: float = option(0.3, "share of keys dropped in the first block")
    schedule: str = option("constant", "drop ratio over depth; constant tries every block")
    pattern: str = option("element", PATTERN_HELP)
    window_size: int | None = option(None, WINDOW_SIZE_HELP)
    batch_size: int = option(4, "images or videos in the trial", at_least=1)
    seed: int = option(0, "seed of the weights and masks", at_least=0)

    def __post_init__(self) -> None:
        check_ranges(self)


def run(arguments: Sequence[str]) -> int:
    """Apply DropKey to an untrained model of that name, and print the sites and what was proved of each."""
    parser = Parser("dropkey verify", _DESCRIPTION)
    parser.add_argument("name", type=str, help=_NAME)
    add_fields(parser, VerifyConfig)
    options = parser.read(arguments)
    config = VerifyConfig(**values_of(VerifyConfig, options))
    regularizer = build_regularizer(_train_config(config))
    assert regularizer is not None

    from dropkey.adapters.apply import apply
    from dropkey.data.seeds import seed_all

    seed_all(config.seed, "verify")
    trial = _trial(options["name"], config)
    _check_it_runs(trial)
    handle = apply(trial.model, regularizer)
    positional, keyword = trial.arguments()
    print(trial, handle, sep="\n", end="\n\n")
    print(handle.verify(*positional, **keyword))
    return DONE


def _train_config(config: VerifyConfig) -> TrainConfig:
    """The options of a run that say what acts on attention."""
    return TrainConfig(
        drop_ratio=config.drop_ratio,
        schedule=config.schedule,
        pattern=config.pattern,
        window_size=config.window_size,
    )


def _trial(name: str, config: VerifyConfig) -> "Trial":
    """The model of a run folder, or of any other name, and its inputs."""
    from dropkey.catalogue import by_name

    folder = Path(name)
    if not folder.is_dir() or (folder / "config.json").exists():
        return by_name.build(name, config.img_size, config.batch_size)
    from dropkey.tasks.run_folder import RunFolder

    run_folder = RunFolder(folder)
    if not run_folder.holds_a_run:
        raise RunError(f"{name} is no run folder and no model of transformers: it holds no config.yaml or config.json")
    saved = run_folder.read_config()
    assert saved.model is not None
    kwargs = parse_model_kwargs(saved.model_kwargs)
    return by_name.build_timm(saved.model, config.img_size or saved.img_size, config.batch_size, **kwargs)


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
