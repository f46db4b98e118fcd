"""``dropkey compare``."""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropkey.cli.exit_codes import DONE, INTERRUPTED
from dropkey.cli.options import Parser, add_fields, values_of
from dropkey.errors import ArgumentError
from dropkey.tasks.config import TrainConfig, check_ranges, option

if TYPE_CHECKING:
    from dropkey.experiments.comparison import Arm

__all__ = ["CompareConfig", "run"]

_DESCRIPTION = (
    "Train several arms with several seeds; end with a table and an HTML page. The options of dropkey train hold for "
    "all arms. Run again, it goes on where it stopped."
)
_OF_ONE_RUN = ("seed", "output")


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """Options of ``dropkey compare`` beside those of ``dropkey train``."""

    arms: tuple[str, ...] = option(
        ("none", "dropout", "dropkey"),
        "a regularizer each, with options of its own after colons: dropkey:drop-ratio=0.3:pattern=block; or options "
        "alone, which leave the regularizer at --regularizer: re-attention=all",
    )
    seeds: int = option(3, "runs an arm, with the seeds 0, 1, ...", at_least=1)
    jobs: int = option(1, "runs at the same time", at_least=1)
    output: str | None = option(None, "folder of the comparison; by default runs/compare-DATA")

    def __post_init__(self) -> None:
        check_ranges(self)


def run(arguments: Sequence[str]) -> int:
    """Train what is not finished, print the table and write the page."""
    options = _parser().read(arguments)
    config = CompareConfig(**values_of(CompareConfig, options))
    base = TrainConfig(**{**values_of(TrainConfig, {**options, "seed": 0}), "output": None})
    arms = [_arm(text, base) for text in config.arms]

    from dropkey.experiments.comparison import Comparison
    from dropkey.experiments.comparison_page import comparison_page
    from dropkey.experiments.comparison_table import arm_rows, as_data, as_text
    from dropkey.tasks.interruption import Interrupted
    from dropkey.tasks.run_folder import write_atomically

    root = Path(config.output or f"runs/compare-{base.data}")
    comparison = Comparison(root, arms, range(config.seeds))
    print(f"{len(arms)} arms x {config.seeds} seeds; folder {root}", flush=True)
    try:
        results = comparison.run(config.jobs, _say)
    except Interrupted:
        print("dropkey: interrupted; the same command goes on where this stopped", file=sys.stderr)
        return INTERRUPTED
    rows = arm_rows(results)
    write_atomically(root / "results.json", (json.dumps(as_data(rows), indent=2) + "\n").encode())
    write_atomically(root / "report.html", comparison_page(results).encode())
    print(f"\n{as_text(rows)}\npage: {root / 'report.html'}")
    return DONE


def _parser() -> Parser:
    parser = Parser("dropkey compare", _DESCRIPTION)
    add_fields(parser, CompareConfig)
    add_fields(parser, TrainConfig, without=_OF_ONE_RUN)
    return parser


def _arm(text: str, base: TrainConfig) -> "Arm":
    """Read ``dropkey:drop-ratio=0.3``: a regularizer, then options of ``dropkey train``."""
    from dropkey.experiments.comparison import Arm

    name, *parts = text.split(":")
    words = ["--regularizer", name] if "=" not in name else []
    for part in parts if words else [name, *parts]:
        key, sign, value = part.partition("=")
        if not sign or key in _OF_ONE_RUN:
            raise ArgumentError(f"the arm {text!r} has {part!r} where an option=value of dropkey train is expected")
        words += [f"--{key}", value]
    parser = Parser("dropkey compare --arms", _DESCRIPTION)
    add_fields(parser, TrainConfig, dataclasses.asdict(base))
    try:
        values: Mapping[str, Any] = parser.read(words)
        return Arm(text, TrainConfig(**values_of(TrainConfig, values)))
    except ArgumentError as error:
        raise ArgumentError(f"the arm {text!r}: {error}") from None


def _say(line: str) -> None:
    print(line, flush=True)
