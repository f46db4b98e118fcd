"""``dropkey evaluate`` of a classifier: its options, all that is measured, and the table."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from dropkey.errors import ArgumentError
from dropkey.regularizers import DropKey
from dropkey.runs.numbers import NonNegativeInt, Share
from dropkey.runs.options import When, one_of, option
from dropkey.runs.prepared import Prepared
from dropkey.tasks.classification.measuring import evaluate, evaluate_monte_carlo, images_per_second, occlusion_curve
from dropkey.tasks.classification.module import Classification
from dropkey.tasks.evaluation import OF_A_MODEL, EvaluationOptions
from dropkey.text_table import text_table

__all__ = ["ClassificationEvaluation", "measure", "table"]


_DRAWS = When("draws", "--monte-carlo or shares of --occlusion", bool, is_flag=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationEvaluation(EvaluationOptions):
    """Options of ``dropkey evaluate`` for a classifier: of a run, or a timm model with weights."""

    monte_carlo: int = option(0, "also average this many passes with DropKey on; 0 for none", kind=NonNegativeInt)
    occlusion: str = option("0.25,0.5,0.75", "shares of patches hidden, separated by commas", takes="X,...")
    data: str = option("", "source of the images", group="data", when=(OF_A_MODEL,), takes="NAME", shown="digits")
    weights: str = option("", "weights file", group="model", when=(OF_A_MODEL,), takes="FILE")
    pretrained: bool = option(False, "take timm's pretrained weights", group="model", when=(OF_A_MODEL,))
    img_size: int = option(
        0,
        "side of the input in pixels",
        group="model",
        kind=NonNegativeInt,
        when=(OF_A_MODEL,),
        shown="the model's own",
    )
    regularizer: Literal["none", "dropkey"] = option(
        "none", "dropkey lets --monte-carlo work on a timm model", group="regularizer", when=(OF_A_MODEL,)
    )
    drop_ratio: float = option(
        0.1,
        "share of keys dropped in the first block",
        group="regularizer",
        kind=Share,
        when=(OF_A_MODEL, one_of("regularizer", "dropkey")),
    )

    seed: int = option(0, "seed of occlusion and masks", kind=NonNegativeInt, when=(_DRAWS,))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.monte_carlo == 1:
            raise ArgumentError("--monte-carlo must be 2 or more to have a standard deviation, got 1")
        self.shares()

    @property
    def draws(self) -> bool:
        """Whether anything measured is random."""
        return bool(self.monte_carlo or self.shares())

    def shares(self) -> list[float]:
        """Return the shares of hidden patches."""
        try:
            shares = [float(part) for part in self.occlusion.split(",") if part.strip()]
        except ValueError:
            raise ArgumentError(f"--occlusion takes shares separated by commas, got {self.occlusion!r}") from None
        if any(not 0 <= share <= 1 for share in shares):
            raise ArgumentError(f"--occlusion shares must be in [0, 1], got {self.occlusion!r}")
        return shares


def measure(trained: Prepared, options: ClassificationEvaluation) -> dict[str, Any]:
    """Return everything that is measured, as plain data."""
    assert isinstance(trained.module, Classification)
    if options.monte_carlo and trained.handle is None:
        raise ArgumentError(
            "--monte-carlo averages over what a regularizer drops, and this model has none: leave it out"
        )
    network, classes = trained.network, len(trained.module.classes)
    if options.monte_carlo and not _drops_keys(trained):
        raise ArgumentError("--monte-carlo draws the keys that DropKey drops, and this model has no DropKey")
    batches = trained.data.val_dataloader()[0]
    result: dict[str, Any] = {"images": trained.data.sizes["val"]}
    result |= dataclasses.asdict(evaluate(network, batches, classes))
    patch_size = _patch_size(trained)
    result["occlusion"] = occlusion_curve(network, batches, classes, options.shares(), patch_size, options.seed)
    result["images_per_second"] = round(images_per_second(network, next(iter(batches))[0]), 1)
    if options.monte_carlo:
        samples = options.monte_carlo
        aligned, spread = evaluate_monte_carlo(network, batches, classes, samples, options.seed)
        result["monte_carlo"] = {"samples": samples, **dataclasses.asdict(aligned), "mean_std": spread}
    return result


def table(result: Mapping[str, Any]) -> str:
    """Return what was measured as text."""
    rows = [["", "accuracy", "loss", "calibration error"], _row("evaluation", result)]
    if "monte_carlo" in result:
        rows.append(_row(f"Monte Carlo, {result['monte_carlo']['samples']} passes", result["monte_carlo"]))
    rows += [
        [f"{float(share):.0%} of patches hidden", f"{value:.4f}", "", ""]
        for share, value in result["occlusion"].items()
    ]
    lines = [text_table(rows), f"{result['images']} images; {result['images_per_second']:.0f} images/s on this machine"]
    if "monte_carlo" in result:
        right, wrong = (_number(result["monte_carlo"]["mean_std"][name]) for name in ("right", "wrong"))
        lines.append(f"standard deviation of the answer over the passes: {right} where right, {wrong} where wrong")
    return "\n".join(lines)


def _drops_keys(trained: Prepared) -> bool:
    handle = trained.handle
    return handle is not None and isinstance(handle.regularizer, DropKey) and max(handle.drop_ratios) > 0


def _patch_size(trained: Prepared) -> int:
    patch_size = getattr(getattr(trained.network, "patch_embed", None), "patch_size", None)
    return int(patch_size[0]) if patch_size else max(1, trained.data.image_format.img_size // 8)  # type: ignore[attr-defined]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _row(name: str, measures: Mapping[str, Any]) -> list[str]:
    return [name, *(f"{measures[key]:.4f}" for key in ("accuracy", "loss", "calibration_error"))]
