"""``dropkey verify``."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from dropkey.cli.exit_codes import DONE
from dropkey.cli.options import Parser, add_fields, values_of
from dropkey.tasks.config import TrainConfig, check_ranges, option

__all__ = ["VerifyConfig", "run"]

_DESCRIPTION = "List the attention of a model and prove that DropKey acts on each site, in training only."


@dataclasses.dataclass(frozen=True)
class VerifyConfig:
    """Options of ``dropkey verify``."""

    img_size: int | None = option(None, "side of the input in pixels; by default the model's own", at_least=1)
    drop_ratio: float = option(0.3, "share of keys dropped in the first block")
    schedule: str = option("constant", "drop ratio over depth; constant tries every block")
    pattern: str = option("element", "which keys are dropped together: element, column, token, block, cross")
    window_size: int | None = option(None, "side of the windows of block and cross, an odd number of patches")
    batch_size: int = option(4, "random images in the trial", at_least=1)
    seed: int = option(0, "seed of the images and masks", at_least=0)

    def __post_init__(self) -> None:
        check_ranges(self)


def run(arguments: Sequence[str]) -> int:
    """Apply DropKey to an untrained model of that name, and print the sites and what was proved of each."""
    parser = Parser("dropkey verify", _DESCRIPTION)
    parser.add_argument("name", type=str, help="timm model name, or the folder of a run: its model")
    add_fields(parser, VerifyConfig)
    options = parser.read(arguments)
    config = VerifyConfig(**values_of(VerifyConfig, options))
    train_config = _train_config(options["name"], config)

    import torch

    from dropkey.adapters.handle import apply
    from dropkey.data.seeds import seed_all
    from dropkey.tasks.config import build_regularizer
    from dropkey.tasks.networks import build_network, image_format_of

    seed_all(config.seed, "verify")
    assert train_config.model is not None
    network = build_network(train_config.model, num_classes=10, img_size=train_config.img_size)
    regularizer = build_regularizer(train_config)
    assert regularizer is not None
    handle = apply(network, regularizer)
    size = image_format_of(network, train_config.img_size).img_size
    print(handle, end="\n\n")
    print(handle.verify(torch.randn(config.batch_size, 3, size, size)))
    return DONE


def _train_config(name: str, config: VerifyConfig) -> TrainConfig:
    """The options of a run of that name, with ours in place."""
    model, img_size = name, config.img_size
    if Path(name).is_dir():
        from dropkey.tasks.run_folder import RunFolder

        saved = RunFolder(Path(name)).read_config()
        model, img_size = saved.model or name, config.img_size or saved.img_size
    return TrainConfig(
        model=model,
        img_size=img_size,
        drop_ratio=config.drop_ratio,
        schedule=config.schedule,
        pattern=config.pattern,
        window_size=config.window_size,
        batch_size=config.batch_size,
        seed=config.seed,
    )
