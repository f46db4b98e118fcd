"""``dropkey experiment``."""

import dataclasses
import shlex
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from dropkey.cli.exit_codes import DONE, INTERRUPTED
from dropkey.cli.options import Given, Parser
from dropkey.errors import ArgumentError, RunError
from dropkey.experiments.launch_options import LaunchOptions, launcher_of
from dropkey.experiments.papers.registry import EXPERIMENTS, WITH_IMAGES, named_experiment
from dropkey.experiments.scales import SCALES
from dropkey.runs.numbers import NonNegativeInt
from dropkey.runs.options import flag, option, refuse_idle

__all__ = ["ExperimentOptions", "run"]

_DESCRIPTION = (
    "Run one of the papers' tables; end with tables and an HTML page. Run again, it resumes; what two experiments of "
    "one folder both train is trained once."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentOptions(LaunchOptions):
    """Options of ``dropkey experiment``."""

    scale: Literal["small", "gpu", "paper"] = option(
        "small", "small: two CPU cores; gpu: one GPU; paper: the full recipe", group="several runs"
    )
    data: str = option(
        "cifar10",
        "source of the images: cifar10, cifar100 or folder (for detection, interaction and mesh: their own)",
        group="data",
        takes="NAME",
    )
    data_dir: str = option("", "folder of the images", group="data", takes="DIR")
    seeds: int = option(
        0, "runs per row (seeds 0, 1, ...)", group="several runs", kind=NonNegativeInt, shown="the experiment's own"
    )
    dry_run: bool = option(
        False, "build every model, take one step of each on random inputs, and say what all would take"
    )
    output: str = option("", "folder of the runs and results", takes="DIR", shown="runs/experiments/SCALE-DATA")


def run(arguments: Sequence[str]) -> int:
    """Train what is not finished, print the tables and write the page."""
    parser = Parser("dropkey experiment", _DESCRIPTION)
    parser.add_argument("name", type=str, help=f"which one: {', '.join(EXPERIMENTS)}, or list for what they claim")
    parser.add_options(ExperimentOptions)
    given = parser.read(arguments)
    name, options = given.values["name"], ExperimentOptions(**given.of(ExperimentOptions))
    if name == "list":
        _refuse_beside_list(given)
        print(_listed())
        return DONE
    refuse_idle(options, [name for name in given.of(LaunchOptions) if name in given.asked])
    recipe = named_experiment(name)
    for asked in ("data", "data_dir"):
        if name not in WITH_IMAGES and asked in given.asked:
            raise ArgumentError(f"{flag(asked)} acts in {', '.join(WITH_IMAGES)}: {name} has its own, leave it out")

    from dropkey.experiments.cost import as_text, dry_run
    from dropkey.experiments.experiment import said_by
    from dropkey.experiments.study import Study
    from dropkey.experiments.study_report import StudyReport
    from dropkey.runs.interruption import Interrupted

    experiment = recipe(SCALES[options.scale], options.data, options.data_dir)
    seeds, claim = options.seeds or experiment.seeds, said_by(recipe)
    print(f"{claim.title}\n\n{claim.words}\n", flush=True)
    if options.dry_run:
        print(as_text(dry_run(experiment, seeds)))
        return DONE
    root = Path(options.output or f"runs/experiments/{options.scale}-{experiment.shared['data']}")
    study = Study(experiment, root / experiment.pool, seeds)
    count = len(list(experiment.rows()))
    print(f"{count} rows x {seeds} seeds, scale {options.scale}; folder {root}", flush=True)
    try:
        tables = study.run(launcher_of(options), _say)
    except Interrupted:
        print("dropkey: interrupted; the same command resumes where this stopped", file=sys.stderr)
        return INTERRUPTED
    report = StudyReport(name, options.scale, claim, study.measures, tables, _command(arguments))
    print(report.text())
    for path in report.write(root):
        print(f"written: {path}")
    failed = "; ".join(f"the arm {label!r} diverged: {error}" for label, error in study.comparison.diverged.items())
    if failed:
        raise RunError(f"{failed}; the tables are of the other arms")
    return DONE


def _refuse_beside_list(given: Given) -> None:
    """Raise an ArgumentError for an option that a list of experiments has no use for."""
    for asked in given.asked:
        if asked != "name":
            raise ArgumentError(f"{flag(asked)} acts with the name of an experiment, not with list: leave it out")


def _listed() -> str:
    from dropkey.experiments.experiment import said_by

    parts = []
    for name in EXPERIMENTS:
        claim = said_by(named_experiment(name))
        body = [_indented(part) for part in claim.words.split("\n\n")]
        parts.append("\n".join([f"{name}: {claim.title}", *body]))
    return "\n\n".join(parts)


def _indented(paragraph: str) -> str:
    return textwrap.fill(paragraph, 100, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)


def _command(arguments: Sequence[str]) -> str:
    return shlex.join(["dropkey", "experiment", *arguments])


def _say(line: str) -> None:
    print(line, flush=True)
