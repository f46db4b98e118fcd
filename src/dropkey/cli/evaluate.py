"""``dropkey evaluate``."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dropkey.cli.exit_codes import DONE
from dropkey.cli.options import Parser, add_fields, values_of
from dropkey.errors import ArgumentError
from dropkey.tasks.config import TrainConfig, check_ranges, option

if TYPE_CHECKING:
    from dropkey.tasks.trained import Trained

__all__ = ["EvaluateConfig", "run"]

_DESCRIPTION = "Measure a trained model: accuracy, loss, calibration, accuracy under occlusion, speed."


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Options of ``dropkey evaluate``."""

    checkpoint: Literal["last", "best"] = option("last", "which checkpoint of a run")
    monte_carlo: int = option(0, "also average this many passes with DropKey on; 0 for none", at_least=0)
    occlusion: str = option("0.25,0.5,0.75", "shares of patches hidden, with commas between")
    data: str | None = option(None, "images for a timm model; see dropkey train")
    data_dir: str | None = option(None, "folder of the images; by default the run's")
    weights: str | None = option(None, "weights file of a timm model")
    pretrained: bool = option(False, "take timm's pretrained weights")
    img_size: int | None = option(None, "side of the input of a timm model in pixels", at_least=1)
    regularizer: Literal["none", "dropkey"] = option("none", "dropkey lets --monte-carlo work on a timm model")
    drop_ratio: float = option(0.1, "of --regularizer dropkey")
    batch_size: int = option(64, "images a pass", at_least=1)
    seed: int = option(0, "seed of occlusion and masks", at_least=0)
    output: str | None = option(None, "JSON file; by default evaluation.json in the folder of a run")

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.monte_carlo == 1:
            raise ArgumentError("--monte-carlo must be 2 or more to have a standard deviation, got 1")
        self.shares()

    def shares(self) -> list[float]:
        """Return the shares of hidden patches."""
        try:
            shares = [float(part) for part in self.occlusion.split(",") if part.strip()]
        except ValueError:
            raise ArgumentError(f"--occlusion takes shares with commas between, got {self.occlusion!r}") from None
        if any(not 0 <= share <= 1 for share in shares):
            raise ArgumentError(f"--occlusion shares must be in [0, 1], got {self.occlusion!r}")
        return shares


_OF_A_MODEL = ("data", "weights", "pretrained", "img_size", "regularizer", "drop_ratio")


def run(arguments: Sequence[str]) -> int:
    """Evaluate a run or a timm model, print a table and write it as JSON."""
    parser = Parser("dropkey evaluate", _DESCRIPTION)
    parser.add_argument("name", type=str, help="folder of a run, or a timm model name with --weights or --pretrained")
    add_fields(parser, EvaluateConfig)
    options = parser.read(arguments)
    config = EvaluateConfig(**values_of(EvaluateConfig, options))
    trained = _load(options["name"], config)
    result = measure(trained, config)
    print(_table(result))
    output = config.output or (str(Path(options["name"]) / "evaluation.json") if Path(options["name"]).is_dir() else "")
    if output:
        from dropkey.tasks.run_folder import write_atomically

        write_atomically(Path(output), (json.dumps(result, indent=2) + "\n").encode())
        print(f"written to {output}")
    return DONE


def measure(trained: "Trained", config: EvaluateConfig) -> dict[str, Any]:
    """Return everything that is measured, as plain data."""
    from dropkey.tasks.evaluation import evaluate, evaluate_monte_carlo, images_per_second, occlusion_curve

    trained.data.batch_size = max(1, config.batch_size // 2)  # evaluation takes twice the batch of training
    batches, classes = trained.data.val_dataloader()[0], trained.num_classes
    result: dict[str, Any] = {"images": len(trained.data.source.val)}
    result |= dataclasses.asdict(evaluate(trained.network, batches, classes))
    patch_size = _patch_size(trained)
    result["occlusion"] = occlusion_curve(trained.network, batches, classes, config.shares(), patch_size, config.seed)
    result["images_per_second"] = round(images_per_second(trained.network, next(iter(batches))[0]), 1)
    if config.monte_carlo:
        samples = config.monte_carlo
        aligned, spread = evaluate_monte_carlo(trained.network, batches, classes, samples, config.seed)
        result["monte_carlo"] = {"samples": samples, **dataclasses.asdict(aligned), "mean_std": spread}
    return result


def _refuse(config: EvaluateConfig, names: Sequence[str], what: str) -> None:
    default = EvaluateConfig()
    for name in names:
        if getattr(config, name) != getattr(default, name):
            raise ArgumentError(f"--{name.replace('_', '-')} is not for {what}")


def _load(name: str, config: EvaluateConfig) -> "Trained":
    from dropkey.tasks.run_folder import RunFolder
    from dropkey.tasks.trained import load_run, load_timm

    if Path(name).is_dir():
        _refuse(config, _OF_A_MODEL, f"the run in {name}, which has its own")
        return load_run(RunFolder(Path(name)), config.checkpoint, config.data_dir)
    if len(Path(name).parts) > 1 and ":" not in name:
        raise ArgumentError(f"no folder {name}: give the folder of a run, or the name of a timm model")
    _refuse(config, ("checkpoint",), f"the timm model {name}: give the folder of a run")
    return load_timm(
        TrainConfig(
            data=config.data or "digits",
            data_dir=config.data_dir,
            model=name,
            img_size=config.img_size,
            pretrained=config.pretrained,
            weights=config.weights,
            regularizer=config.regularizer,
            drop_ratio=config.drop_ratio,
            workers=0,
        )
    )


def _patch_size(trained: "Trained") -> int:
    patch_size = getattr(getattr(trained.network, "patch_embed", None), "patch_size", None)
    return patch_size[0] if patch_size else max(1, trained.data.image_format.img_size // 8)


def _table(result: Mapping[str, Any]) -> str:
    from dropkey.adapters.table import text_table

    rows = [["", "accuracy", "loss", "calibration error"], _row("evaluation", result)]
    if "monte_carlo" in result:
        rows.append(_row(f"Monte Carlo, {result['monte_carlo']['samples']} passes", result["monte_carlo"]))
    rows += [
        [f"{float(share):.0%} of patches hidden", f"{value:.4f}", "", ""]
        for share, value in result["occlusion"].items()
    ]
    lines = [text_table(rows), f"{result['images']} images; {result['images_per_second']:.0f} images/s on this machine"]
    if "monte_carlo" in result:
        right, wrong = (result["monte_carlo"]["mean_std"][name] for name in ("right", "wrong"))
        lines.append(
            f"standard deviation of the answer over the passes: {right:.4f} where right, {wrong:.4f} where wrong"
        )
    return "\n".join(lines)


def _row(name: str, measures: Mapping[str, Any]) -> list[str]:
    return [name, *(f"{measures[key]:.4f}" for key in ("accuracy", "loss", "calibration_error"))]
